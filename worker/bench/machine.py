"""On what a bench ran, and what a process of it took."""

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from worker.engines.ov_machine import cpu_capabilities, usable_cores

_PACKAGES: Final = ("nli-stream-worker", "openvino", "confluent-kafka", "tokenizers", "numpy")
_SAMPLE_SECONDS: Final = 0.5
_MIB: Final = 1024 * 1024


def describe_machine() -> dict[str, object]:
    """The machine and the versions, as a report names them."""
    name, *capabilities = cpu_capabilities()
    return {
        "cpu": name,
        "arithmetic": capabilities,
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in _PACKAGES},
    }


@dataclass(slots=True)
class Usage:
    """What a process took; complete when the block of `watched` has been left."""

    cpu_seconds: float = 0.0
    peak_rss_mib: float | None = None
    """None where the system does not tell."""
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the block began, and MiB then; what processes share is counted for each of them."""


@contextmanager
def watched(pid: int, every_seconds: float = _SAMPLE_SECONDS) -> Iterator[Usage]:
    """Watch the process `pid` and all below it, from a thread, for as long as the block takes."""
    usage = Usage()
    is_over = threading.Event()
    began = time.monotonic()
    before = {each: _cpu_seconds(each) for each in _family(pid)}
    latest = dict(before)

    def look() -> None:
        family = _family(pid)  # anew: who was started again has another number
        latest.update((each, max(_cpu_seconds(each), latest.get(each, 0.0))) for each in family)
        resident = sum(filter(None, map(_resident_mib, family)))
        if resident:
            usage.samples.append((time.monotonic() - began, resident))

    def sample() -> None:
        look()
        while not is_over.wait(every_seconds):
            look()

    thread = threading.Thread(target=sample, name="usage", daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        is_over.set()
        thread.join()
        look()
        usage.cpu_seconds = sum(latest.values()) - sum(before.values())
        usage.peak_rss_mib = max((resident for _, resident in usage.samples), default=None)


def _family(pid: int) -> list[int]:
    """The process and all below it, as they are now: `uv run` has the program as its child, a fleet its processes."""
    found = [pid]
    for parent in found:
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # it ended meanwhile
                found += [int(child) for child in listed.read_text(encoding="utf-8").split()]
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        # The fields after the name, which may hold spaces and is the last thing in brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid: int) -> float | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
