"""A plan for a model: the one that is kept, or a new one, built in a process of its own while nobody else builds."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from worker.clock import Clock, SystemClock
from worker.engines.artifact import ModelFolder
from worker.engines.cuda import DeviceFacts
from worker.engines.plans import LAYERS_FILE, PLAN_FILE, PlanStore, StoredPlan
from worker.engines.trt_child import FAILURE, RESULT, TIMINGS_FILE, order_as_json
from worker.engines.trt_order import BUILD_SECONDS, BuildOrder, check_order, check_version, timings_key
from worker.errors import EngineError
from worker.types import JsonValue

_FOLDER: Final = "plans"
_SCRATCH: Final = ".build."
_CHILD: Final = (sys.executable, "-m", "worker.engines.trt_child")

Progress = Callable[[str, float], None]

_log = structlog.get_logger(__name__)


def plan_store(cache_dir: Path) -> PlanStore:
    """The plans in the worker's cache folder."""
    return PlanStore(cache_dir / _FOLDER)


def ignore_progress(phase: str, done: float) -> None:
    """Say nothing."""
    del phase, done


@dataclass(frozen=True, slots=True)
class Builder:
    """Who builds plans on this machine."""

    store: PlanStore
    tensorrt: str
    """The library's version."""
    device: DeviceFacts
    progress: Progress = ignore_progress
    seconds: float = BUILD_SECONDS
    """After which a build is given up."""
    clock: Clock = SystemClock()  # noqa: RUF009  # it holds nothing

    def find(self, folder: ModelFolder, order: BuildOrder) -> StoredPlan | None:
        """The kept plan for `order`, or None.

        Raises:
            ConfigError: an order that makes no sense, or that this version of the library cannot build.
            EngineError: files are there that another user may have written.
        """
        return self.store.find(self._facts(folder, order))

    def build(self, folder: ModelFolder, order: BuildOrder, *, again: bool = False) -> StoredPlan:
        """The plan for `order`: the kept one, else (or `again`) a new one. Blocks, for minutes where it builds.

        Raises:
            ConfigError: an order that makes no sense, or that this version of the library cannot build.
            EngineError: it cannot be built or kept, or took too long.
        """
        kept = None if again else self.find(folder, order)
        if kept is not None:
            return kept
        facts = self._facts(folder, order)
        with self.store.building():
            # Whoever held the lock may have built just this.
            kept = None if again else self.store.find(facts)
            return kept or self._build(folder, order, facts)

    def _facts(self, folder: ModelFolder, order: BuildOrder) -> dict[str, JsonValue]:
        """Under which facts the plan of an order that can be built here is kept."""
        check_order(order, folder)
        check_version(order, self.tensorrt)
        return order.facts(folder, self.tensorrt, self.device)

    def _build(self, folder: ModelFolder, order: BuildOrder, facts: dict[str, JsonValue]) -> StoredPlan:
        began = self.clock.monotonic()
        key = timings_key(facts)
        with self._scratch(self.store.recall_timings(key)) as name:
            scratch = Path(name)
            notes = self._run_child(order_as_json(folder, order, scratch))
            notes["build_seconds"] = round(self.clock.monotonic() - began, 1)
            try:
                plan = (scratch / PLAN_FILE).read_bytes()
                timings = (scratch / TIMINGS_FILE).read_bytes()
                layers = (scratch / LAYERS_FILE).read_bytes()
            except OSError as error:
                raise EngineError("the process that builds the plan left none behind; the log says why") from error
            self.store.keep_timings(key, timings)
            return self.store.put(facts, plan, notes, layers)

    def _scratch(self, known: bytes) -> "tempfile.TemporaryDirectory[str]":
        """A folder for one build, with what is known of kernels in it.

        Raises:
            EngineError: it cannot be written.
        """
        self._sweep()
        with contextlib.ExitStack() as made:
            try:
                scratch = tempfile.TemporaryDirectory(dir=self.store.root, prefix=_SCRATCH, ignore_cleanup_errors=True)
                made.callback(scratch.cleanup)
                if known:
                    Path(scratch.name, TIMINGS_FILE).write_bytes(known)
            except OSError as error:
                raise EngineError(
                    f"{self.store.root}: nothing can be built there ({error.strerror}); free space, or set cache_dir"
                ) from error
            made.pop_all()
            return scratch

    def _sweep(self) -> None:
        """Throw away what builders that were killed have left: gigabytes, for a large model.

        Only what is older than any build may get: on a volume whose locks other hosts do not see, one of them may be
        building.
        """
        stale_before = self.clock.wall() - self.seconds
        for left in self.store.root.glob(f"{_SCRATCH}*"):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < stale_before:
                    shutil.rmtree(left)

    def _run_child(self, order: str) -> dict[str, JsonValue]:
        """What the process notes of its plan.

        Raises:
            EngineError: it failed, died, or took too long.
        """
        notes: dict[str, JsonValue] = {}
        failure: str | None = None
        is_late = threading.Event()
        with subprocess.Popen(_CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

            def give_up() -> None:
                is_late.set()
                child.kill()

            limit = threading.Timer(self.seconds, give_up)
            limit.start()
            try:
                for line in _lines_of(child, order):
                    notes = line.get(RESULT, notes)
                    failure = line.get(FAILURE, failure)
                    if "phase" in line:
                        self.progress(str(line["phase"]), float(line["done"]))
            except BaseException:
                child.kill()
                raise
            finally:
                limit.cancel()
        if is_late.is_set():
            raise EngineError(f"the plan was not built within {self.seconds:g} s; fewer profiles take less time")
        if failure is not None or child.returncode != 0:
            raise EngineError(failure or f"the process that builds the plan died ({_cause(child.returncode)})")
        return notes


def _lines_of(child: "subprocess.Popen[str]", order: str) -> Any:  # noqa: ANN401  # JSON as it comes
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("This is a bug. The process has no pipes.")
    try:
        child.stdin.write(order)
        child.stdin.close()
    except BrokenPipeError:
        # It died at once: its exit code says why.
        return
    for line in child.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            yield said


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
