"""What kubelet has given to whom: its pod resources API and its checkpoint file. Reads only."""
