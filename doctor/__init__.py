"""Finds out why a node's GPUs cannot be used, and says which command mends it.

Three parts, kept apart: `gather` reads a node's files and the API server, `checks` judges what was
read, and `report` tells it. Nothing is ever written but the report.
"""
