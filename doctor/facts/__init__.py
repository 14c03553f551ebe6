"""What was read of a node and its cluster: values only, neither IO nor judgement.

Everything has an empty default, which means that it was not there or was not looked at.
"""
