"""Keeps the libraries of this room from phoning home."""

import os
import sys
from types import ModuleType


def silence_telemetry() -> None:
    """Turn off what OpenVINO, NNCF and the hub client would report. Call before importing any of them."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if "openvino_telemetry" not in sys.modules:
        # Both libraries treat a missing telemetry package as "send nothing"; None makes its import fail.
        modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None is allowed at run time
        modules["openvino_telemetry"] = None
