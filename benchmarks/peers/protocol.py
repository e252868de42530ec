"""What every contestant speaks with the bench that started it: one JSON object per line, in and out."""

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

Settings = dict[str, Any]


def settings() -> Settings:
    """The first line: broker, model folder, labels, template, threads."""
    return dict(json.loads(sys.stdin.readline()))


def say(**values: object) -> None:
    """One line to the bench."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def ready(*packages: str) -> None:
    """Everything is loaded; these are the versions."""
    say(event="ready", versions={package: metadata.version(package) for package in packages})


def runs() -> Iterator[Settings]:
    """Every further line: a run to make, until the bench closes the pipe."""
    for line in sys.stdin:
        yield dict(json.loads(line))
