"""The engine seam: token ids in, logits out. It knows no text, no label, no topic."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from worker.types import Batch, EngineInfo, PairScores


class Engine(Protocol):
    """A loaded model that scores batches of pairs. One per worker process, used by one thread at a time."""

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        ...

    def warm_up(self) -> None:
        """Run the smallest and the largest shape once, so that no record pays for the first call."""
        ...

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch; a smaller one may fit.
            EngineError: the engine cannot score at all. Any other exception means that this batch failed.
        """
        ...

    def close(self) -> None:
        """Give back memory and threads. Not to be used after."""
        ...


@runtime_checkable
class OverlappingEngine(Engine, Protocol):
    """An engine that can be given a batch while another one is on its way, so that it has no time to be idle."""

    @property
    def can_overlap(self) -> bool:
        """Whether it can do so as it was loaded; where not, `begin` is not to be called."""
        ...

    def begin(self, batch: Batch) -> Callable[[], PairScores]:
        """Start to score `batch` and return what waits for it, which is `score` but for the start.

        At most one other batch is on its way. What is returned is called once, in the order in which batches were
        begun, unless the process ends.

        Raises:
            Exception: as `score`; so does what is returned.
        """
        ...
