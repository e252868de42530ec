"""Compiled engines on disk: kept by everything that changes their result, whole or not at all, for nobody else."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.engines.artifact import file_sha256
from worker.errors import EngineError
from worker.types import JsonValue

PLAN_FILE: Final = "model.plan"
MANIFEST_FILE: Final = "manifest.json"
LAYERS_FILE: Final = "layers.json"
"""What the library says of the plan's layers: for people, and read by nothing."""
_FORMAT: Final = 1
_ID_DIGITS: Final = 16
_KEPT_FOR_OWNER: Final = 0o600
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

Facts = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan whose bytes are those that were built, by this user, for these facts."""

    folder: Path
    facts: dict[str, JsonValue]
    """Everything that changes the result: model, export, precision, shapes, options, library, GPU, driver."""
    notes: dict[str, JsonValue]
    """What was found out about it: seconds to build, what the gate measured, layers that are fused."""
    digest: str
    """The sha256 of the plan, in hex: built again from the same facts it is another plan."""

    @property
    def plan_file(self) -> Path:
        """The plan."""
        return self.folder / PLAN_FILE

    def read(self) -> bytes:
        """The plan's bytes, which are those of `digest`.

        Raises:
            EngineError: they cannot be read, or are others by now.
        """
        try:
            plan = self.plan_file.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.folder}: the plan cannot be read ({error.strerror}); start again") from error
        if hashlib.sha256(plan).hexdigest() != self.digest:
            raise EngineError(f"{self.folder}: the plan was changed or replaced while it was loaded; start again")
        return plan


class PlanStore:
    """The plans below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, facts: Facts) -> StoredPlan | None:
        """The plan for exactly these facts; None where there is none, or where it was damaged and so removed.

        Raises:
            EngineError: files are there that another user may have written.
        """
        folder = self._folder(facts)
        if not folder.is_dir():
            return None
        stored = read_plan(folder)
        if stored is None or stored.facts != _plain(facts):
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
            return None
        return stored

    def put(self, facts: Facts, plan: bytes, notes: Facts, layers: bytes = b"") -> StoredPlan:
        """Keep a plan, and what is said of its layers; it appears whole or not at all, in place of what was there.

        Raises:
            EngineError: it cannot be written.
        """
        folder = self._folder(facts)
        digest = hashlib.sha256(plan).hexdigest()
        try:
            self._make_root()
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".new.") as scratch:
                made = Path(scratch) / "plan"
                made.mkdir(mode=0o700)
                _write(made / PLAN_FILE, plan)
                if layers:
                    _write(made / LAYERS_FILE, layers)
                _write_manifest(made, facts, notes, digest)
                if folder.exists():
                    # Names in use cannot be replaced; whoever still reads the old one keeps it open.
                    folder.rename(Path(scratch) / "old")
                made.rename(folder)
        except OSError as error:
            raise EngineError(
                f"{self.root}: the engine cannot be kept ({error.strerror}); free space there, or set cache_dir"
            ) from error
        return StoredPlan(folder, _plain(facts), _plain(notes), digest)

    def amend(self, stored: StoredPlan, notes: Facts) -> StoredPlan:
        """The plan with `notes` beside what was known of it; one that was replaced meanwhile keeps its own.

        Raises:
            EngineError: they cannot be written.
        """
        merged = stored.notes | _plain(notes)
        try:
            # What was measured of one plan must never vouch for another in its place.
            if file_sha256(stored.plan_file) == stored.digest:
                _write_manifest(stored.folder, stored.facts, merged, stored.digest)
        except OSError as error:
            raise EngineError(f"{stored.folder}: the manifest cannot be written ({error.strerror})") from error
        return StoredPlan(stored.folder, stored.facts, merged, stored.digest)

    def plans(self) -> list[StoredPlan]:
        """Every plan that is whole, by folder."""
        if not self.root.is_dir():
            return []
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [stored for folder in folders if (stored := _readable(folder)) is not None]

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Hold the right to build on this host: one at a time, as each takes the whole GPU. Blocks."""
        try:
            self._make_root()
            handle = os.open(self.root / ".building", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _KEPT_FOR_OWNER)
        except OSError as error:
            raise EngineError(f"{self.root}: cannot be written ({error.strerror}); set cache_dir") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                raise EngineError(f"{self.root}: cannot be locked ({error.strerror}); set another cache_dir") from error
            yield
        finally:
            os.close(handle)

    def recall_timings(self, key: str) -> bytes:
        """What earlier builds measured of kernels, under a key of library and GPU; `b""` where nothing is known."""
        try:
            file = self._timings(key)
            _check_owner(file)
            return file.read_bytes()
        except OSError:
            return b""

    def keep_timings(self, key: str, timings: bytes) -> None:
        """Keep what a build measured; where that cannot be written the next build measures again."""
        with contextlib.suppress(OSError):
            self._make_root()
            _write(self._timings(key), timings)

    def _timings(self, key: str) -> Path:
        return self.root / f"{hashlib.sha256(key.encode()).hexdigest()[:_ID_DIGITS]}.timings"

    def _make_root(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _folder(self, facts: Facts) -> Path:
        return self.root / plan_id(facts)


def plan_id(facts: Facts) -> str:
    """A short name for facts: another fact, another name."""
    known = json.dumps({"format": _FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:_ID_DIGITS]


def read_plan(folder: Path) -> StoredPlan | None:
    """The plan in a folder; None where it is damaged.

    Raises:
        EngineError: files are there that another user may have written.
    """
    for file in (folder, folder / MANIFEST_FILE, folder / PLAN_FILE):
        try:
            _check_owner(file)
        except FileNotFoundError:
            return None
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
        facts, notes, digest = manifest["facts"], manifest["notes"], manifest["sha256"]
        is_whole = file_sha256(folder / PLAN_FILE) == digest and isinstance(facts, dict) and isinstance(notes, dict)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return StoredPlan(folder, facts, notes, digest) if is_whole else None


def _readable(folder: Path) -> StoredPlan | None:
    try:
        return read_plan(folder)
    except EngineError:
        return None


def _check_owner(file: Path) -> None:
    """Compiled engines are code: what another user could have put there is never run.

    Raises:
        EngineError: the file is a link, of another user, or others may write it.
        FileNotFoundError: there is none.
    """
    status = file.lstat()
    is_mine = status.st_uid in {os.geteuid(), 0} and not status.st_mode & _OTHERS_MAY_WRITE
    if stat.S_ISLNK(status.st_mode) or not is_mine:
        raise EngineError(f"{file}: not written by this user alone, so not loaded; remove it, or set cache_dir")


def _write_manifest(folder: Path, facts: Facts, notes: Facts, digest: str) -> None:
    manifest = {"format": _FORMAT, "sha256": digest, "facts": facts, "notes": notes}
    _write(folder / MANIFEST_FILE, json.dumps(manifest, indent=1, sort_keys=True).encode())


def _write(file: Path, content: bytes) -> None:
    """Write a file for its owner alone, under another name until it is whole."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".part.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(_KEPT_FOR_OWNER)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _plain(values: Facts) -> dict[str, JsonValue]:
    """As JSON gives them back."""
    plain: dict[str, JsonValue] = json.loads(json.dumps(dict(values)))
    return plain
