"""Getting the programs: which versions, where to look, how to download, how to build.

Running them is not done here; nothing in this package starts a server.
"""
