"""Prometheus on a local cluster with gpudetour: what is scraped, asked for and drawn from it.

For tests and pictures only. What users get is in `manifests/monitoring`.
"""
