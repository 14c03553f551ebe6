"""The container images of the real node, made from one static C program, without a registry.

Only the making is here; importing them into containerd is the node's business.
"""
