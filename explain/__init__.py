"""Says why a pod waits, why it was refused, or why it got the GPUs that it has.

`gather` reads what the API server tells; all else judges those facts and reads nothing. The rules
of placement are those of `extender.placement`, and no second version of them belongs here.
"""
