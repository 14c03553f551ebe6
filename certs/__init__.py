"""Our own certificate authority: makes certificates, stores them, and says who trusts it.

`authority` is X.509 and nothing else. `succession` and `plan` decide from what exists and the time,
by `rules`; `issue` carries out. `converge` does one pass with `store` and `files`, `rotation` one
after the other. No other package makes certificates.
"""
