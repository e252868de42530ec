"""The worker's cache folder, and in it what the gate said, so that each engine is measured once per machine."""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from worker.engines.build import GateReport

_FOLDER: Final = "gate"
_RULES_VERSION: Final = 3
"""Rises when the gate's rules or bounds change, so that old verdicts no longer count."""


def default_cache_dir() -> Path:
    """The worker's folder in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nli-stream-worker"


def verdict_key(facts: Mapping[str, object]) -> str:
    """A name for everything that changes a verdict: 64 hexadecimal digits."""
    known = json.dumps({"rules": _RULES_VERSION, **facts}, sort_keys=True, default=list)
    return hashlib.sha256(known.encode()).hexdigest()


def recall_verdict(cache_dir: Path, key: str) -> GateReport | None:
    """The report last kept under `key`, where the gate was passed; None otherwise."""
    try:
        kept = json.loads((cache_dir / _FOLDER / f"{key}.json").read_bytes())
        report = GateReport(**kept)
    except (OSError, ValueError, TypeError):
        # Missing or damaged, it is measured anew.
        return None
    return report if report.passed is True else None


def keep_verdict(cache_dir: Path, key: str, report: GateReport) -> None:
    """Keep a report for `recall_verdict`; a folder that cannot be written only means measuring again next time."""
    folder = cache_dir / _FOLDER
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False) as stream:
            json.dump(dataclasses.asdict(report), stream)
        Path(stream.name).rename(folder / f"{key}.json")
