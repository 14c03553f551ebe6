"""Reads facts: from a file tree, from NVML, from the API server. No judgement.

Whatever is in a file, reading it ends in a fact; what may not be read is noted, never raised.
"""
