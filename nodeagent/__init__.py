"""The agent of one node: what GPUs it has, by which way they are served, and their device plugin.

One process a node. It reads the GPUs (`inventory`), serves kubelet's device plugin socket
(`deviceplugin`), sees who holds what (`podresources`), decides the path (`path`), and writes all of
it on its own Node (`publisher`). It places nothing and touches no pod.
"""
