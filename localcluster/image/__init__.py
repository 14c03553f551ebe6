"""The container images of the real node, without a registry: some made from one static C program,
and gpudetour's own, which `image` puts together.

Only the making is here; importing them into containerd is the node's business.
"""
