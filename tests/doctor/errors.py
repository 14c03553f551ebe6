"""The six errors that people meet with NVIDIA's plugin on a new node, as they are written."""

ERROR_1 = """\
E1218 21:38:29.590783 1 factory.go:113] Incompatible strategy detected auto
E1218 21:38:29.590788 1 factory.go:114] If this is a GPU node, did you configure the toolkit?
I1218 21:38:29.590798 1 main.go:385] No devices found. Waiting indefinitely.
"""
ERROR_1_IN_0_20 = (
    "E0812 factory.go:97] Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND.\n"
    "E0812 main.go:184] error starting plugins: error creating plugin manager\n"
)
ERROR_1_WITH_FAIL = "main.go:184] error starting plugins: invalid device discovery strategy\n"
ERROR_2 = (
    'level=error msg="failed to create NVIDIA Container Runtime: error constructing low-level'
    ' runtime: error locating runtime: no runtime binary found from candidate list: [runc crun]"\n'
)
ERROR_3 = 'time="2025-12-18T19:56:07Z" level=info msg="Found 0 CDI devices"\n'
ERROR_4 = "E1218 main.go:173] error starting plugins: invalid strategy: {}\n"
ERROR_5 = (
    "E1218 21:35:32.020938 1 main.go:177] error starting plugins: unable to load config: unable to"
    " finalize config: unable to parse config file: error parsing config file: unmarshal error:"
    " error unmarshaling JSON: while decoding JSON: no resources specified\n"
)
ERROR_6 = (
    "nvidia-device-plugin: symbol lookup error: /usr/lib/x86_64-linux-gnu/libc.so.6: undefined"
    " symbol: __tunable_is_initialized, version GLIBC_PRIVATE\n"
)
PRINTED_CONFIG = '{"version": "v1", "flags": {}, "sharing": {"timeSlicing": {}}}'
