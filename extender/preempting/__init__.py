"""Pods that get the GPUs of less important ones: what is wanted, and evictions that are safe."""
