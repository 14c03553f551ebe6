"""A real Kubernetes on one machine, for the demo, the tests and the benchmark.

Here belongs everything that gets the programs of Kubernetes, starts them and takes them away again:
control plane, one real node, simulated nodes. What the product does is not known here; only
`stack`, which wires the product's processes into such a cluster, and the demo and benchmark above
it know their command lines. Nothing of this is part of an installation.
"""
