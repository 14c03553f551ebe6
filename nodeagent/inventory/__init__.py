"""What GPUs the node has, read from NVIDIA's library or from weaker sources.

A source answers the whole machine as one `gpus.model.NodeInventory`; facts that it could not learn
are absent. `binding` is the only module that knows pynvml. Who holds a GPU, and what is done about
a faulty one, is decided elsewhere.
"""
