"""Messages and stubs of kubelet's pod resources API v1, generated from `api.proto`."""
