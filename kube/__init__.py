"""Talks to the Kubernetes API server; has never heard of GPUs.

One thin client over urllib3, a reflector, Leases and Events. Objects are decoded straight from the
wire into structs that hold only the fields that we read (`kube.objects`); that is what keeps
thousands of pods and nodes cheap. The official client is used for what it is best at: reading
kubeconfig files and their many ways to log in.
"""
