"""Who leads among the replicas, how the API server fences all others, what is inherited."""
