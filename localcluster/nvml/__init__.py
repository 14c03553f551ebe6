"""NVML without hardware: a C library that answers as NVIDIA's does, for machines described in JSON.

`build` compiles it, `install` places it with one machine's description below a driver root, and
`machine` changes that machine while programs have the library loaded. pynvml loads it through the
same code as in production; nothing here imports pynvml, and nothing outside tests, demo and
benchmark imports this.
"""
