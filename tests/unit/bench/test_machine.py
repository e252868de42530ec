"""What a process took, and all below it."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.bench.machine import watched

BURN = """
import sys, time
while time.process_time() < 0.5: pass
print("done", flush=True)
sys.stdin.readline()
"""
PARENT = f"import subprocess, sys; sys.stdin.readline(); subprocess.run([sys.executable, '-c', {BURN!r}])"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_a_process_that_is_started_while_one_watches_counts() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with watched(process.pid, every_seconds=0.01) as usage:
            process.stdin.write(b"go\n")
            process.stdin.flush()
            assert b"done\n" == process.stdout.readline()
        process.stdin.close()
    assert usage.cpu_seconds >= 0.45
    seconds, sizes = zip(*usage.samples, strict=True)
    assert len(sizes) >= 2
    assert list(seconds) == sorted(seconds)
    assert max(sizes) == usage.peak_rss_mib
    assert usage.peak_rss_mib > 1.5 * sizes[0] > 0  # two interpreters
