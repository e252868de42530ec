"""Tests against torch and transformers: skipped as a whole, with one reason, where they are not installed."""

import importlib.util
from pathlib import Path

import pytest

_NEEDED = ("torch", "transformers", "gliclass", "onnx", "onnxscript", "nncf", "sklearn")
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is collected here, and skip it where it cannot run."""
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.reference)
        if missing:
            reason = f"without {', '.join(missing)}; run `uv run --group reference pytest -m reference`"
            item.add_marker(pytest.mark.skip(reason=reason))
