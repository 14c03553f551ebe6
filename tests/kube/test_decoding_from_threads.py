"""The first decoding of a type may happen in several threads at once."""

from __future__ import annotations

import subprocess
import sys

#: Fresh types again and again, for only the first decoding of each is dangerous. In a process of
#: its own, for what may go wrong ends the process.
_PROGRAM = """
import sys, threading
import msgspec
from kube.wire import convert, decoder

sys.setswitchinterval(1e-6)

def race(number):
    inner = msgspec.defstruct(f"Inner{number}", [(f"field_{n}", str, "") for n in range(20)])
    outers = [msgspec.defstruct(f"Outer{number}x{n}", [("inner", inner)]) for n in range(4)]
    start = threading.Barrier(8)
    def decode(thread):
        start.wait()
        outer = outers[thread % 4]
        if thread < 4:
            assert decoder(outer).decode(b'{"inner": {"field_1": "x"}}').inner.field_1 == "x"
        else:
            assert convert({"inner": {"field_1": "x"}}, outer).inner.field_1 == "x"
    threads = [threading.Thread(target=decode, args=(thread,)) for thread in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

for number in range(100): race(number)
print("survived")
"""


def test_threads_that_decode_new_types_at_the_same_time_do_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr
