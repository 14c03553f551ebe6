"""The scheduler extender: filter, prioritize and bind for pods that ask for GPUs.

Decisions are pure and live in `extender.placement`; `cluster` is the one mutable place. Around them
are thin edges: what kube-scheduler asks (`app`, `protocol`, `filtering`) and how its connections
are treated (`pace`, `connections`, `patience`), `binding` to the API server, `leading` among
replicas, `waking` the scheduler, `preempting` others.
"""
