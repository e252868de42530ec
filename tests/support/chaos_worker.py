"""`worker run` with a fault built in, for a process of its own: `python -m tests.support.chaos_worker run -c …`.

So is `dead-letters replay`, as far as its producer is concerned.

The fault is read from the environment variable CHAOS (JSON of `Faults`). The product knows nothing of it: this module
hands the worker an engine, a decoder and producers of its own before the command starts.
"""

import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from worker import app, assembler, processor, watchdog
from worker.cli.main import main
from worker.engines.base import Engine
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.errors import EngineOutOfMemoryError
from worker.flow import PartitionsGone
from worker.kafka import replay
from worker.kafka.clients import ClientSettings
from worker.kafka.offsets import Ownership
from worker.kafka.publishing import PublisherParts
from worker.messages.codec import decode
from worker.observability import liveness
from worker.types import Batch, EngineInfo, PairScores

POISON_TOKENS = 60
"""A pair as long as this breaks the engine: every test's poison records have a text that makes such pairs."""
FEW_PAIRS = 4
HELD_SECONDS = 0.02
"""How often who is held looks whether it still is."""
COMMIT_SHARE = 0.5
"""Of what the shortest commit took: in so much of the next one, or of an abort, it is interrupted."""
ENVIRONMENT = "CHAOS"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and when."""

    phase: str = "never"
    """Where the process is killed, or stopped."""
    at: int = 3
    """The how manieth time it gets there."""
    signal: str = "SIGKILL"
    """What it is sent there; within a commit or an abort always SIGALRM, as sudden as SIGKILL.

    `hang`: nothing, and the thread that got there never comes back; `hold`: it does when the file `held_by` is gone.
    """
    refuse_commits: int = 0
    """So many commits, from the `at`-th on, are refused by the client in a way that asks for an abort."""
    engine: str = "poison"
    """`poison`: raises for poisonous pairs; `nan`, `shape`: answers so. From batch `at` on: `dead`: raises for
    everything; `hang`: never comes back; `thread`: ends its thread; `memory`: has none for more than four pairs."""
    engine_calls: int = 1_000_000
    """For how many calls from `at` on the engine is dead or has little memory."""
    engine_seconds: float = 0.0
    """How long every batch takes at least."""
    pair_seconds: float = 0.0
    """How long every pair takes in addition."""
    held_by: str = ""
    """From batch `at` on none comes back as long as this file is there; with a phase, this holds whoever gets there."""
    patience_seconds: float = 0.0
    """Above zero: the limit of every thread's heartbeat, and of standing still."""
    slow_call: str = "never"
    """`begin`, `send_offsets` or `commit`: takes `slow_seconds` from the `at`-th transaction on."""
    slow_seconds: float = 0.0
    revoke_seconds: float = 0.0
    """Above zero: the budget of a rebalance."""
    broken: bool = False
    """Commits offsets first and outputs after: a build that nobody must ship."""
    unfiltered: bool = False
    """Publishes what it has of partitions that are no longer its own: another one."""


class Trap:
    """Ends or stops this process when it gets to the wanted place for the wanted time."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._seen = 0

    def pass_by(self, phase: str, within_seconds: float = 0.0) -> None:
        """Spring if this is the place; with `within_seconds` at some moment of what comes next."""
        if phase != self._faults.phase:
            return
        self._seen += 1
        if self._seen != self._faults.at:
            return
        if self._faults.signal == "hang":
            threading.Event().wait()
        elif self._faults.signal == "hold":
            log.info("trap.held", phase=phase)
            _await_gone(self._faults.held_by)
        elif within_seconds:
            # The kernel's own timer: no thread of ours has to come to its turn in these few milliseconds.
            signal.setitimer(signal.ITIMER_REAL, max(1e-4, random.uniform(0, within_seconds)))
        else:
            self._spring()

    def leave(self) -> None:
        """What was to be interrupted is over: a trap that has not sprung yet springs outside of it."""
        if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            log.warning("trap.missed")

    def _spring(self) -> None:
        os.kill(os.getpid(), getattr(signal, self._faults.signal))


def _await_gone(file: str) -> None:
    while Path(file).exists():
        threading.Event().wait(HELD_SECONDS)


@contextmanager
def _told(call: str, **values: object) -> Iterator[None]:
    """Logs what came of a call of the client."""
    outcome = "done"
    try:
        yield
    except KafkaException as error:
        outcome = error.args[0].name()
        raise
    finally:
        log.info("transaction.told", call=call, outcome=outcome, process=os.getpid(), **values)


class ChaosProducer(Producer):
    """A real producer that passes a trap at every step."""

    def __init__(self, settings: ClientSettings, faults: Faults, trap: Trap) -> None:
        super().__init__(settings)
        self._faults, self._trap = faults, trap
        self._begun = self._commits = 0
        self._commit_seconds, self._shortest_seconds = 0.002, math.inf
        self._kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def begin_transaction(self) -> None:
        self._begun += 1
        self._linger("begin")
        super().begin_transaction()

    def produce(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        if self._faults.broken:
            self._kept.append((arguments, more))
            return
        try:
            super().produce(*arguments, **more)
        except BufferError:
            log.warning("queue.found_full", records=len(self))
            raise

    def flush(self, *arguments: Any) -> int:  # noqa: ANN401
        left = super().flush(*arguments)
        self._trap.pass_by("after_flush")
        return left

    def send_offsets_to_transaction(self, *arguments: Any) -> None:  # noqa: ANN401
        if self._faults.phase == "after_produce":
            super().flush(2)  # so that the broker has the records
        self._trap.pass_by("after_produce")
        self._linger("send_offsets")
        # For whoever asks later in which transaction a record was published twice.
        positions = [f"{each.topic}/{each.partition}@{each.offset}" for each in arguments[0]]
        with _told("offsets_sent", positions=positions, member=hash(arguments[1]) % 10_000):
            super().send_offsets_to_transaction(*arguments)
        self._trap.pass_by("after_send_offsets")

    def commit_transaction(self, *arguments: Any) -> None:  # noqa: ANN401
        self._commits += 1
        if self._faults.at <= self._commits < self._faults.at + self._faults.refuse_commits:
            make = cast("Any", KafkaError)  # the stubs know only its first two arguments
            raise KafkaException(make(KafkaError.TRANSACTION_ABORTABLE, "by chaos", False, False, True))
        self._linger("commit")
        self._trap.pass_by("during_commit", self._commit_seconds)
        began = time.monotonic()
        with _told("committed"):
            super().commit_transaction(*arguments)
        # The first one takes longest: by it, most traps would spring when a later one is over.
        self._shortest_seconds = min(self._shortest_seconds, time.monotonic() - began)
        self._commit_seconds = self._shortest_seconds * COMMIT_SHARE
        self._trap.leave()
        self._trap.pass_by("after_commit")
        if self._faults.broken:
            kept, self._kept = self._kept, []
            super().begin_transaction()
            for each, more in kept:
                super().produce(*each, **more)
            super().commit_transaction(*arguments)

    def abort_transaction(self, *arguments: Any) -> None:  # noqa: ANN401
        self._trap.pass_by("during_abort", self._commit_seconds)
        with _told("aborted"):
            super().abort_transaction(*arguments)
        self._trap.leave()

    def _linger(self, call: str) -> None:
        if call == self._faults.slow_call and self._begun >= self._faults.at:
            threading.Event().wait(self._faults.slow_seconds)


class ChaosEngine:
    """The fake engine, with the fault."""

    def __init__(self, inner: Engine, faults: Faults, trap: Trap) -> None:
        self._inner, self._faults, self._trap = inner, faults, trap
        self._batches = 0

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    def warm_up(self) -> None:
        self._refuse_if_dead()
        self._inner.warm_up()

    @property
    def can_overlap(self) -> bool:
        """The next batch is begun before this one is waited for; it is scored when it is."""
        return True

    def begin(self, batch: Batch) -> Callable[[], PairScores]:
        return lambda: self.score(batch)

    def score(self, batch: Batch) -> PairScores:
        self._batches += 1
        seconds = self._faults.engine_seconds + self._faults.pair_seconds * len(batch.refs)
        if seconds:
            threading.Event().wait(seconds)  # the engine is slow, whoever waits
        if self._batches >= self._faults.at and self._faults.phase == "never" and self._faults.held_by:
            _await_gone(self._faults.held_by)
        self._trap.pass_by("while_scoring")
        self._refuse_if_dead()
        if self._is_due("hang"):
            threading.Event().wait()
        if self._is_due("thread"):
            raise SystemExit
        if self._is_due("memory") and len(batch.refs) > FEW_PAIRS:
            raise EngineOutOfMemoryError("by chaos")
        scores = self._inner.score(batch)
        is_poison = batch.lengths >= POISON_TOKENS
        if not is_poison.any():
            return scores
        if self._faults.engine == "nan":
            return PairScores(np.where(is_poison[:, None], np.float32(np.nan), scores.logits))
        if self._faults.engine == "shape":
            return PairScores(scores.logits[:-1])
        raise RuntimeError("poisoned")

    def close(self) -> None:
        self._inner.close()

    def _refuse_if_dead(self) -> None:
        if self._is_due("dead"):
            self._batches += 1
            raise RuntimeError("out of order")

    def _is_due(self, fault: str) -> bool:
        first = self._faults.at
        return self._faults.engine == fault and first <= self._batches < first + self._faults.engine_calls


def _install(faults: Faults) -> None:
    trap = Trap(faults)

    def load(choice: EngineChoice) -> LoadedModel:
        model = load_engine(choice)
        return replace(model, engine=ChaosEngine(model.engine, faults, trap))

    def decode_trapped(*arguments: Any) -> Any:  # noqa: ANN401
        trap.pass_by("after_poll")
        return decode(*arguments)

    if faults.unfiltered:
        _replace(processor, "PartitionsGone", lambda _: PartitionsGone(frozenset()))
        cast("Any", Ownership).owned = lambda _, finished: list(finished)
    if faults.revoke_seconds:
        _replace(processor, "REVOKE_SECONDS", faults.revoke_seconds)
    if faults.patience_seconds:
        cast("Any", processor).LIVENESS_SECONDS = dict.fromkeys(processor.LIVENESS_SECONDS, faults.patience_seconds)
        cast("Any", watchdog).STALL_SECONDS = faults.patience_seconds / 2
        cast("Any", liveness).LOOK_SECONDS = 0.2
    # Names of other modules are replaced: in this process, before anything runs.
    _replace(app, "load_engine", load)
    _replace(assembler, "decode", decode_trapped)
    producer = partial(PublisherParts, make_producer=lambda settings: ChaosProducer(settings, faults, trap))
    _replace(assembler, "PublisherParts", producer)
    _replace(replay, "Producer", lambda settings: ChaosProducer(settings, faults, trap))


def _replace(module: ModuleType, name: str, by: object) -> None:
    assert hasattr(module, name)  # a name that has moved would be an attack that never happens
    setattr(module, name, by)


if __name__ == "__main__":
    _install(Faults(**json.loads(os.environ.get(ENVIRONMENT, "{}"))))
    main()
