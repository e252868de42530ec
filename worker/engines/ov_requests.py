"""The infer requests of a model compiled by OpenVINO, one per stream, and what has to be done when one fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.engines.memory import with_memory_errors_told
from worker.errors import EngineOutOfMemoryError

Feed = Mapping[str, npt.NDArray[np.integer]]
"""Input name -> integers [pairs, tokens]."""
Logits = npt.NDArray[np.floating]


class InferRequests:
    """Runs parts of a batch at the same time, and of the next one as soon as a stream is free. One thread uses it."""

    def __init__(self, compiled: Any, streams: int, compile_again: Callable[[], Any]) -> None:  # noqa: ANN401  not typed for us
        """`compile_again` gives what `compiled` is, anew: needed after a failure."""
        self._streams = streams
        self._compile_again = compile_again
        self._compiled: Any = compiled
        self._idle: list[Any] = []

    def __len__(self) -> int:
        """How many parts run at the same time; more wait for their turn."""
        return self._streams

    def begin(self, feeds: Sequence[Feed]) -> Callable[[], list[Logits]]:
        """Start on the parts of a batch; what is returned waits for them, and is called once.

        That gives the logits of each feed, copied: a tensor is its request's own memory, overwritten by a later call.

        Raises:
            EngineOutOfMemoryError: the memory ran out; smaller batches may fit. What is returned raises it, too.
            RuntimeError: OpenVINO failed otherwise.
        """
        started = with_memory_errors_told(lambda: self._start(feeds))
        return lambda: with_memory_errors_told(lambda: self._finish(*started))

    def _start(self, feeds: Sequence[Feed]) -> "tuple[Any, list[_Running]]":
        if self._compiled is None:
            self._compiled, self._idle = self._compile_again(), []
        compiled, running, is_done = self._compiled, [], False
        try:
            for feed in feeds:
                request = self._idle.pop() if self._idle else compiled.create_infer_request()
                unwritten = _mark_output(request)
                request.start_async(feed, share_inputs=True)
                running.append(_Running(request, unwritten, len(next(iter(feed.values()))), feed))
            is_done = True
        finally:
            if not is_done:
                self._give_up(compiled)
                _await([each.request for each in running], is_told=False)
        return compiled, running

    def _finish(self, compiled: Any, running: "list[_Running]") -> list[Logits]:  # noqa: ANN401
        is_done = False
        try:
            _await([each.request for each in running])
            if self._compiled is not compiled:
                raise RuntimeError("another batch has failed in this compiled model: what it gives now may be wrong")
            found = [_result(each.request, each.unwritten, each.rows) for each in running]
            is_done = True
        finally:
            if not is_done:
                self._give_up(compiled)
        self._idle += [each.request for each in running]
        return found

    def _give_up(self, compiled: Any) -> None:  # noqa: ANN401
        """What failed half-way keeps the shapes of that batch, in all requests of the compiled model."""
        if self._compiled is compiled:
            self._compiled, self._idle = None, []


@dataclass(frozen=True, slots=True)
class _Running:
    """A part on its way."""

    request: Any
    unwritten: float
    rows: int
    feed: Feed
    """Its memory is read until the request is done."""


def _await(requests: list[Any], *, is_told: bool = True) -> None:
    """Wait for all of them, also where one has failed: none is left running."""
    failure: RuntimeError | None = None
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            failure = failure or error
    if failure is not None and is_told:
        try:
            raise failure
        finally:
            del failure  # its frames hold this one, and with it requests and feeds


def _mark_output(request: Any) -> float:  # noqa: ANN401
    """Fill the output with a number that no logit is, so that a result can be told from what stood there before."""
    stale = request.get_output_tensor(0).data
    unwritten = float(np.finfo(stale.dtype).max)
    stale[...] = unwritten
    return unwritten


def _result(request: Any, unwritten: float, rows: int) -> Logits:  # noqa: ANN401
    logits: Logits = request.get_output_tensor(0).data.copy()
    # Seen with one thread and too little memory: no error, and the logits of an earlier batch.
    if len(logits) != rows or (logits == unwritten).all():
        raise EngineOutOfMemoryError("OpenVINO gave no result: most likely there is too little memory")
    return logits
