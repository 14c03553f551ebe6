"""The mutating admission webhook: turns a pod that asks for GPUs into one that can be served.

It also shows no GPU to containers that could reach one and did not ask. Stateless but for the names
of RuntimeClasses. What a pod becomes is decided by the pure `webhook.mutate`; the rest reads
reviews, answers them, and serves HTTPS.
"""
