"""What GPUs are, what a pod asks of them, and how both are written on Kubernetes objects.

Values and pure functions only: no clock, no network, no file. Everything that two components must
agree on (names of labels and annotations, their encoding, how a pod's demand is counted) lives here
and nowhere else.
"""
