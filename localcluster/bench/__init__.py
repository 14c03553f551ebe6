"""How fast and how large gpudetour is, beside kube-scheduler alone, on one machine in one run.

Measures from outside: watches, /metrics and /proc. Knows nothing of how placement works.
"""
