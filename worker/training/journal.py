"""What happened in a run, one JSON object a line: made to be plotted, and cut back when a run resumes."""

import json
import os
from pathlib import Path

from worker.types import JsonValue


class Journal:
    """A file that only grows, apart from what came after the last checkpoint."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        self._file = file

    @property
    def size_bytes(self) -> int:
        """How long the file is: what a checkpoint remembers."""
        return self._file.stat().st_size

    def cut(self, size_bytes: int) -> None:
        """Forget what was written after the file was so long."""
        if size_bytes < self.size_bytes:
            os.truncate(self._file, size_bytes)

    def write(self, event: str, **values: JsonValue) -> None:
        """Add one line; it is on its way to the disk when this returns."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": event, **values}) + "\n")
