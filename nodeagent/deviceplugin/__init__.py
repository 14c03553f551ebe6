"""Our device plugin: kubelet's v1beta1 protocol, what a container is given, and the CDI spec.

Knows devices as values of `gpus.model`; who has which GPUs and whether to serve at all is decided
elsewhere (`nodeagent.path`).
"""
