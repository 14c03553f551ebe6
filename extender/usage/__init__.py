"""What the leader records of who held how many GPUs for how long (`gpus.usage` has the format).

`holding` reads a ledger (pure), `recorder` keeps time and writes.
"""
