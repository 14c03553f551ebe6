"""Sends very many wrong requests to the applications of webhook and extender, in this process.

`python -m localcluster.fuzz` says which answer was not in order, and how to see it again. What goes
wrong below HTTP, as sockets that stall, is not looked for here.
"""
