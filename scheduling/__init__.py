"""How a cluster's own kube-scheduler is told of the extender, on each distribution.

`flavors` knows where each keeps things, `configuration` puts the extender into a
KubeSchedulerConfiguration, `advice` says what else to do: all pure. `cluster` reads from the API
server, `files` reads and writes files.
"""
