"""An engine with a batch on its way and the next one right behind it, where the engine can do that."""

from collections.abc import Callable

from worker.engines.base import Engine, OverlappingEngine
from worker.types import Batch, EngineInfo, PairScores


class Begun:
    """A batch that the engine has; its outcome is there once, whoever waited for it first."""

    def __init__(self, wait: Callable[[], PairScores]) -> None:
        """`wait` blocks until the engine is done, and gives the scores or raises; it is called once."""
        self._wait: Callable[[], PairScores] | None = wait
        self.was_alone = True
        """Whether the engine had nothing else meanwhile: only then is a failure this batch's own."""
        self._scores: PairScores | None = None
        self._error: Exception | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the engine is known to be done with it."""
        return self._wait is None

    def settle(self) -> None:
        """Wait until the engine is done with it, whatever came of it. Blocks."""
        if self._wait is None:
            return
        wait, self._wait = self._wait, None
        try:
            self._scores = wait()
        except Exception as error:  # noqa: BLE001  an engine may raise anything, and `result` does
            self._error = _without_frames(error)

    def result(self) -> PairScores:
        """The scores; to be asked for once. Blocks.

        Raises:
            Exception: whatever the engine raised.
        """
        self.settle()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its frames hold this one
        if self._scores is None:
            raise RuntimeError("the scores of this batch were asked for before")
        scores, self._scores = self._scores, None
        return scores


class EngineLine:
    """The engine of a worker, which it asks for one batch at a time or for the next while it waits for the last.

    What is asked for by `score` and `warm_up` has the engine for itself: all that was begun is waited for. So a call
    that is made because another one failed finds the engine idle, and all the memory that there is.
    """

    def __init__(self, engine: Engine) -> None:
        """Nothing is on its way."""
        self._engine = engine
        self._begun: list[Begun] = []

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself."""
        return self._engine.info

    @property
    def can_overlap(self) -> bool:
        """Whether the engine may take a batch before it has given back the last one."""
        return self._overlapping() is not None

    def begin(self, batch: Batch) -> Begun:
        """Give the engine `batch`, behind what it has. Where it cannot wait in line it is scored when asked for."""
        if (engine := self._overlapping()) is None:
            return Begun(lambda: self.score(batch))
        before = [each for each in self._begun if not each.is_settled]
        begun = Begun(_begun(engine, batch))
        self._begun = [*before, begun]
        if before:
            for each in self._begun:
                each.was_alone = False
        return begun

    def settle(self) -> None:
        """Wait until the engine is idle. Blocks."""
        for begun in self._begun:
            begun.settle()
        self._begun = []

    def score(self, batch: Batch) -> PairScores:
        """As the engine's own, once it is idle."""
        self.settle()
        return self._engine.score(batch)

    def warm_up(self) -> None:
        """As the engine's own, once it is idle."""
        self.settle()
        self._engine.warm_up()

    def close(self) -> None:
        """As the engine's own, once it is idle."""
        self.settle()
        self._engine.close()

    def _overlapping(self) -> OverlappingEngine | None:
        engine = self._engine
        return engine if isinstance(engine, OverlappingEngine) and engine.can_overlap else None


def _begun(engine: OverlappingEngine, batch: Batch) -> Callable[[], PairScores]:
    """What waits for `batch`; a failure to begin is told there, too."""
    try:
        return engine.begin(batch)
    except Exception as error:  # noqa: BLE001  an engine may raise anything
        return _raising(_without_frames(error))


def _raising(error: Exception) -> Callable[[], PairScores]:
    def fail() -> PairScores:
        raise error

    return fail


def _without_frames(error: Exception) -> Exception:
    """The error alone: frames would keep the arrays for which there was no memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
