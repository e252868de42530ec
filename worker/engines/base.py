"""The engine seam: token ids in, logits out. It knows no text, no label, no topic."""

from typing import Protocol

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
