"""The read-only page: the fleet, who holds what, and why pods wait, as the ledger has it.

Nothing here decides or writes anything, and without `--page` none of it runs.
"""
