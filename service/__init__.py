"""What every process of ours needs, whatever it does: logs, metrics, TLS, HTTP serving, threads.

Knows neither GPUs nor Kubernetes, so that each module can be read and tested on its own.
"""
