"""What is in gpudetour's container image, and how it is put together without a container engine.

Debian packages and locked wheels are unpacked into one tree of files; nothing of them is run, so
neither root nor a chroot is needed. Standard library only: the Dockerfile runs the same code with
nothing installed. Keeping finished images is `localcluster.image`'s business, releasing them
`release`'s.
"""
