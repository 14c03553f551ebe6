"""What people type: `gpudetour`, also as `kubectl gpudetour`.

`fleet` turns nodes and pods into rows (pure), `render` writes rows as tables or JSON, `__main__`
holds the commands. Everything is read from the API server; nothing here talks to a GPU.
"""
