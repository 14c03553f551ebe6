"""What to look at, as `Check`s: `cluster` of the cluster itself, `neighbours` of other software."""
