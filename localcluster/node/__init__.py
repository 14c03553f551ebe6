"""The real node: containerd and kubelet as root, with containers on this machine, and taking all of
it away again.

Nothing here knows GPUs: a device plugin is whoever speaks on kubelet's socket, a CDI spec whatever
lies in the folder.
"""
