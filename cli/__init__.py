"""What people type: `gpudetour`, also as `kubectl gpudetour`.

`__main__` is the table of commands, each in a module of its own; `options` has what they share.
Lists: `reading` asks the API server, `fleet` makes rows of it (pure), `columns` and `render` write
them, `following` goes on with what changes. Nothing here talks to a GPU or changes the cluster.
"""
