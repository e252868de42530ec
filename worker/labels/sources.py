"""Where label schema documents come from. A source reads documents; the registry decides."""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import watchfiles

from worker.documents import DocumentError, read_document
from worker.errors import SchemaError
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema, parse_schema
from worker.types import JsonValue

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_DEBOUNCE_MILLISECONDS = 100
"""How long a change may go on before it is read: several files written at once are one change."""


class Source(Protocol):
    """Hands documents to a registry, and goes on doing so as they change."""

    def load(self, registry: LabelRegistry) -> None:
        """Load everything once, at start; a document that is refused is for the registry to tell.

        Raises:
            SchemaError: the source itself cannot be read.
        """
        ...

    def watch(self, registry: LabelRegistry, stop: threading.Event) -> None:
        """Load again after every change, until `stop` is set. Blocks: run it on a thread of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What a folder held at one moment, by file."""

    documents: Mapping[str, JsonValue]
    unreadable: Mapping[str, str]
    """Files that are no documents, and why."""


class DirectorySource:
    """The `.yaml`, `.yml` and `.json` files of one folder, without its sub-folders and hidden files.

    A ConfigMap mounted as a folder works: its files are links that are swapped together.
    """

    def __init__(self, path: Path, poll_seconds: float = 2.0) -> None:
        """Reads nothing yet. Where the file system announces no changes they are seen after `poll_seconds`."""
        self._path = path
        self._poll_seconds = poll_seconds
        self._fingerprint = b""

    def read(self) -> Reading:
        """What the folder holds now, in the order of the files' names. Blocks.

        Raises:
            SchemaError: there is no such folder, or it cannot be listed.
        """
        documents: dict[str, JsonValue] = {}
        unreadable: dict[str, str] = {}
        for path in self._files():
            try:
                documents[str(path)] = read_document(path)
            except DocumentError as error:
                unreadable[str(path)] = str(error)
        return Reading(documents, unreadable)

    def load(self, registry: LabelRegistry) -> None:
        """Load the folder once, at start. Blocks.

        Raises:
            SchemaError: the folder cannot be read.
        """
        self._fingerprint = self._current_fingerprint()
        reading = self.read()
        registry.load(reading.documents, reading.unreadable)

    def load_or_raise(self, registry: LabelRegistry) -> None:
        """Load the folder where every document is to be good. Blocks.

        Raises:
            SchemaError: the folder cannot be read, or the first of its documents that is refused.
        """
        self.load(registry)
        for refusal in registry.refusals():
            raise SchemaError(str(refusal))

    def refresh(self, registry: LabelRegistry) -> None:
        """Load the folder again if a file in it has changed; what cannot be read is a refusal. Blocks."""
        try:
            fingerprint = self._current_fingerprint()
            if fingerprint == self._fingerprint:
                return
            reading = self.read()
        except SchemaError as error:
            fingerprint = b""
            origin, _, reason = str(error).rpartition(": ")
            reading = Reading({}, {origin: reason})
        registry.load(reading.documents, reading.unreadable)
        # Taken before the reading: what changed in between is read once more.
        self._fingerprint = fingerprint

    def watch(self, registry: LabelRegistry, stop: threading.Event) -> None:
        """Load the folder again after every change in it, until `stop` is set. Blocks: run it on its own thread."""
        while not stop.is_set():
            try:
                self._follow(registry, stop)
            except (OSError, RuntimeError):
                # The folder is gone, or the system has no more watches to give: look at it from time to time.
                self.refresh(registry)
                stop.wait(self._poll_seconds)

    def _follow(self, registry: LabelRegistry, stop: threading.Event) -> None:
        changes = watchfiles.watch(
            self._path,
            watch_filter=None,  # the default leaves out names that a mounted ConfigMap is made of
            debounce=_DEBOUNCE_MILLISECONDS,
            stop_event=stop,
            rust_timeout=int(self._poll_seconds * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )
        for _ in changes:
            self.refresh(registry)

    def _files(self) -> list[Path]:
        try:
            entries = sorted(self._path.iterdir())
        except OSError as error:
            raise SchemaError(f"{self._path}: expected a folder that can be read ({error.strerror})") from None
        return [
            path for path in entries if path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]

    def _current_fingerprint(self) -> bytes:
        digest = hashlib.sha256()
        for path in self._files():
            try:
                content = path.read_bytes()
            except OSError as error:
                content = str(error.errno).encode()
            digest.update(hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).digest())
            digest.update(hashlib.sha256(content).digest())
        return digest.digest()


def checked_files(files: Iterable[Path]) -> Iterator[tuple[Path, LabelSchema | str]]:
    """Each file with the label schema in it, or why it holds none."""
    for file in files:
        try:
            yield file, parse_schema(read_document(file), str(file))
        except DocumentError as error:
            yield file, str(error)
        except SchemaError as error:
            yield file, str(error).removeprefix(f"{file}: ")
