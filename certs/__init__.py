"""Our own certificate authority: makes certificates, stores them, and says who trusts it.

`authority` is X.509 and nothing else, `plan` decides from what exists and the time, `store` and
`files` write. No other package makes certificates.
"""
