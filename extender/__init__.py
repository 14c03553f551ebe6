"""The scheduler extender: filter, prioritize and bind for pods that ask for GPUs.

Decisions are pure and live in `extender.placement`; `cluster` is the one mutable place; the other
modules are thin edges: the scheduler's wire format, the API server's, and leadership.
"""
