"""Calling kube-scheduler for pods that wait while something that fits has come free."""
