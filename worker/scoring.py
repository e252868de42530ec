"""Step 7, and what happens when it fails: the message that breaks the engine is told from an engine that is broken."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import structlog

from worker.engine_line import Begun
from worker.engines.base import Engine
from worker.engines.layout import filler_batch
from worker.errors import EngineError, EngineOutOfMemoryError, ErrorCode, Stage
from worker.flow import BatchFailed, BatchScored
from worker.pipeline.cutting import halve_messages, halve_tokens, padded_tokens
from worker.token_allowance import TokenAllowance
from worker.types import Batch, PairScores, Refusal

CANARY_TOKENS = 8
"""The pair that any engine with any memory left can score."""
OUT_OF_MEMORY = "out_of_memory"
FAILED = "failed"
BROKEN = "broken"

_NO_MEMORY = (EngineOutOfMemoryError, MemoryError)

log = structlog.get_logger(__name__)


def score_or_isolate(engine: Engine, batch: Batch) -> list[BatchScored | BatchFailed]:
    """The scores of `batch`; where the engine fails on it, of ever smaller parts, refusing what it fails on alone.

    Raises:
        EngineError: the engine fails on what it surely can score, too: no message is at fault.
    """
    return list(BatchWork(engine, batch, TokenAllowance()).events())


def score_checked(engine: Engine, batch: Batch) -> PairScores:
    """The scores of `batch`, of the right shape and finite.

    Raises:
        ValueError: they are not; or whatever the engine raises.
    """
    return _checked(engine.score(batch), engine, batch)


def _checked(scores: PairScores, engine: Engine, batch: Batch) -> PairScores:
    expected = (batch.asked, engine.info.head.classes)
    if scores.logits.shape != expected:
        raise ValueError(f"the engine returned logits of shape {scores.logits.shape}, expected {expected}")
    if not np.isfinite(scores.logits).all():
        raise ValueError("the engine returned logits that are not finite")
    return scores


class BatchWork:
    """A batch on its way through an engine that may fail: what is done comes out, what is left stays.

    A part that fails is halved: by message until the one that breaks the engine is alone (one bad message among n costs
    at most 2 log2(n) + 1 calls, and three to be sure), by tokens where the memory ran out. Who fails alone is tried
    again after the engine has shown that it works, and refused only if it fails again: an engine that dies and
    comes back in the middle costs no message its prediction.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Batch,
        allowance: TokenAllowance,
        note_failure: Callable[[str], None] = lambda _kind: None,
        begun: Begun | None = None,
    ) -> None:
        """`note_failure` is told of every call that failed: OUT_OF_MEMORY, FAILED or BROKEN.

        `begun` has the scores of the whole batch, where the engine was given it already. Where that fails, and the
        engine had another batch as well, nobody can tell whose fault it is: then the batch is scored alone.
        """
        self._engine = engine
        self._allowance = allowance
        self._note_failure = note_failure
        self._begun = begun
        self.has_failed = False
        """Whether anything was asked for more than once."""
        self._left = [batch]
        self._suspect: Batch | None = None

    def events(self) -> Iterator[BatchScored | BatchFailed]:
        """What became of each part; every pair is in exactly one of them.

        Raises:
            EngineError: the engine is broken. What is left can be asked for again by another call.
        """
        while self._left:
            part = self._left[-1]
            is_begun = self._begun is not None  # of what the engine has there is nothing to halve
            if not is_begun and len(part.refs) > 1 and not self._allowance.allows(padded_tokens(part)):
                self._left[-1:] = reversed(halve_tokens(part))
            elif (event := self._try(part)) is not None:
                self._left.pop()
                yield event

    def _try(self, part: Batch) -> BatchScored | BatchFailed | None:
        """One call of the engine; None when `part` has been halved, or is to be tried again."""
        begun, self._begun = self._begun, None
        is_doubtful = begun is not None and not begun.was_alone  # whose failure one would be
        try:
            scores = _checked(begun.result() if begun else self._engine.score(part), self._engine, part)
        except EngineError:
            self.has_failed = True
            if not is_doubtful:
                self._note_failure(BROKEN)
                raise
            name = BROKEN
        except _NO_MEMORY:
            name = OUT_OF_MEMORY
        except Exception as error:  # noqa: BLE001  an engine may raise anything
            name = type(error).__name__
        else:
            self._allowance.succeeded(padded_tokens(part))
            return BatchScored(part, scores)
        # Only here, where the error and the arrays that its frames hold are gone.
        self.has_failed = True
        if is_doubtful:
            log.info("batch.asked_again", pairs=len(part.refs), error=name)
            return None
        if name == OUT_OF_MEMORY:
            return self._with_less_memory(part)
        self._note_failure(FAILED)
        log.warning("batch.failed", pairs=len(part.refs), error=name)
        halves = halve_messages(part)
        if len(halves) > 1:
            self._left[-1:] = reversed(halves)
            return None
        return self._refuse_twice_failed(part, f"the engine failed with {name}", self._require_working)

    def _with_less_memory(self, part: Batch) -> BatchFailed | None:
        self._note_failure(OUT_OF_MEMORY)
        tokens = padded_tokens(part)
        log.warning("engine.out_of_memory", pairs=len(part.refs), padded_tokens=tokens)
        if len(part.refs) > 1:
            self._allowance.exhausted(tokens)
            self._left[-1:] = reversed(halve_tokens(part))
            return None
        return self._refuse_twice_failed(part, "the engine has no memory for one of its pairs", self._require_any)

    def _refuse_twice_failed(self, part: Batch, reason: str, require: Callable[[], None]) -> BatchFailed | None:
        if self._suspect is part:
            return BatchFailed(part, Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, reason))
        require()
        self._suspect = part
        return None

    def _require_working(self) -> None:
        """Raise EngineError unless the engine scores what it scored at its start, or as much as the memory allows."""
        try:
            self._engine.warm_up()
        except _NO_MEMORY:
            is_short = True
        except Exception as error:
            self._note_failure(BROKEN)
            raise EngineError(f"the engine fails whatever it is given ({type(error).__name__})") from error
        else:
            is_short = False
        if is_short:
            self._require_any()

    def _require_any(self) -> None:
        """Raise EngineError unless the engine scores the smallest pair."""
        try:
            score_checked(self._engine, _canary())
        except Exception as error:
            self._note_failure(BROKEN)
            raise EngineError(f"the engine fails on the smallest pair, too ({type(error).__name__})") from error


def _canary() -> Batch:
    """With one token of the other type: whatever an engine looks for there, a hypothesis, an option or a label."""
    filler = filler_batch(1, CANARY_TOKENS)
    types = filler.type_ids.copy()
    types[-2] = 1
    return replace(filler, type_ids=types)
