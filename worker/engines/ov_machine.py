"""What the machine gives OpenVINO: cores, and the arithmetic of its CPU."""

import os
from pathlib import Path
from typing import Any, Final

from worker.engines.telemetry import silence_telemetry

BFLOAT16: Final = "BF16"
"""What `OPTIMIZATION_CAPABILITIES` calls arithmetic in bfloat16."""
_CPU_QUOTA_FILE: Final = Path("/sys/fs/cgroup/cpu.max")
_CPU_FILE: Final = Path("/proc/cpuinfo")
_PRODUCTS_OF_BYTES: Final = frozenset({"avx512_vnni", "avx_vnni"})


def core() -> Any:  # noqa: ANN401  # the library is not typed for us
    """The OpenVINO runtime."""
    silence_telemetry()
    import openvino  # noqa: PLC0415  # takes a second, and only this engine needs it

    return openvino.Core()


def library_version() -> str:
    """The version of the OpenVINO runtime."""
    silence_telemetry()
    import openvino  # noqa: PLC0415  # as above

    return str(openvino.get_version())


def capabilities() -> tuple[str, ...]:
    """What arithmetic OpenVINO finds in this CPU, by its own names."""
    return tuple(sorted(str(name) for name in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))


def cpu_capabilities() -> tuple[str, ...]:
    """The CPU's name, and what arithmetic it has: what a verdict on an engine depends on."""
    flags = sorted(cpu_flags() & _PRODUCTS_OF_BYTES)
    return (str(core().get_property("CPU", "FULL_DEVICE_NAME")), *capabilities(), *flags)


def has_fast_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 rather than emulating it."""
    return BFLOAT16 in capabilities()


def has_8bit_products() -> bool:
    """Whether this CPU multiplies 8-bit numbers faster than others: it has VNNI."""
    return bool(cpu_flags() & _PRODUCTS_OF_BYTES)


def cpu_flags() -> frozenset[str]:
    """What Linux says that the CPU can do; nothing elsewhere."""
    try:
        lines = _CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def usable_cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its container where that is less."""
    # Only Linux knows the affinity of a process.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = _CPU_QUOTA_FILE.read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
