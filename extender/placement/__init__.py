"""Which node, and which of its GPUs, a pod gets: values in, values out.

No clock, no network, no thread: time and turn come in as arguments. The ledger of who holds what
is an immutable value here; the one variable that points to the current one is `extender.cluster`.
"""
