"""Step 7, and what happens when it fails: the message that breaks the engine is told from an engine that is broken."""

from collections.abc import Callable

import numpy as np
import structlog

from worker.engines.base import Engine
from worker.errors import EngineError, ErrorCode, Stage
from worker.flow import BatchFailed, BatchScored
from worker.pipeline.batching import split
from worker.types import Batch, PairScores, Refusal

log = structlog.get_logger(__name__)

Scorer = Callable[[Batch], PairScores]


def score_or_isolate(engine: Engine, batch: Batch) -> list[BatchScored | BatchFailed]:
    """The scores of `batch`; where the engine fails on it, of each message alone, refusing those that it fails on.

    Raises:
        EngineError: the engine fails on what it surely can score, too: no message is at fault.
    """
    try:
        return [BatchScored(batch, score_checked(engine, batch))]
    except EngineError:
        raise
    except Exception as error:  # noqa: BLE001  an engine may raise anything
        log.warning("batch.failed", pairs=len(batch.refs), error=type(error).__name__)
    return [_score_alone(engine, part) for part in split(batch)]


def score_checked(engine: Engine, batch: Batch) -> PairScores:
    """The scores of `batch`, of the right shape and finite.

    Raises:
        ValueError: they are not; or whatever the engine raises.
    """
    scores = engine.score(batch)
    expected = (len(batch.refs), engine.info.head.classes)
    if scores.logits.shape != expected:
        raise ValueError(f"the engine returned logits of shape {scores.logits.shape}, expected {expected}")
    if not np.isfinite(scores.logits).all():
        raise ValueError("the engine returned logits that are not finite")
    return scores


def _score_alone(engine: Engine, part: Batch) -> BatchScored | BatchFailed:
    try:
        return BatchScored(part, score_checked(engine, part))
    except EngineError:
        raise
    except Exception as error:  # noqa: BLE001
        name = type(error).__name__
    try:
        engine.warm_up()
    except Exception as error:
        raise EngineError(f"the engine fails whatever it is given ({type(error).__name__})") from error
    return BatchFailed(part, Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, f"the engine failed with {name}"))
