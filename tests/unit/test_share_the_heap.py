"""How many heaps a process with many threads has, as its own malloc tells."""

import ctypes
import subprocess
import sys

import pytest

from worker.lifecycle import HEAPS

COUNT = """
import ctypes, sys, threading
from worker.lifecycle import share_the_heap

if sys.argv[1] == "shared":
    share_the_heap()
libc, together = ctypes.CDLL(None), threading.Barrier(17)

def allocate():
    libc.malloc(10_000)
    together.wait()

for _ in range(16):
    threading.Thread(target=allocate).start()
together.wait()
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fclose(stream)
"""


def heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True)
    return done.stdout.count(b"<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="libc is not glibc")
def test_threads_share_a_few_heaps() -> None:
    assert heaps("own") > HEAPS
    assert heaps("shared") <= HEAPS
