"""Binding a pod: the list of its devices, then node and assignment in one write."""
