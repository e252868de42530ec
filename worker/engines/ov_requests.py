"""The infer requests of a model compiled by OpenVINO, one per stream, and what has to be done when one fails."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.engines.memory import with_memory_errors_told
from worker.errors import EngineOutOfMemoryError

Feed = Mapping[str, npt.NDArray[np.integer]]
"""Input name -> integers [pairs, tokens]."""
Logits = npt.NDArray[np.floating]


class InferRequests:
    """Runs parts of a batch at the same time. One thread uses it."""

    def __init__(self, compiled: Any, streams: int, compile_again: Callable[[], Any]) -> None:  # noqa: ANN401  not typed for us
        """`compile_again` gives what `compiled` is, anew: needed after a failure."""
        self._streams = streams
        self._compile_again = compile_again
        self._requests: list[Any] = _requests_of(compiled, streams)

    def __len__(self) -> int:
        """How many parts can run at the same time."""
        return self._streams

    def infer(self, feeds: Sequence[Feed]) -> list[Logits]:
        """The logits of each feed, copied: a tensor is its request's own memory, overwritten by the next call. Blocks.

        Raises:
            EngineOutOfMemoryError: the memory ran out; smaller batches may fit.
            RuntimeError: OpenVINO failed otherwise.
        """
        return with_memory_errors_told(lambda: self._infer(feeds))

    def _infer(self, feeds: Sequence[Feed]) -> list[Logits]:
        if not self._requests:
            self._requests = _requests_of(self._compile_again(), self._streams)
        is_done = False
        try:
            started = []
            for request, feed in zip(self._requests, feeds, strict=False):
                started.append((request, _mark_output(request), len(next(iter(feed.values())))))
                request.start_async(feed, share_inputs=True)
            _await([request for request, _, _ in started])
            found = [_result(request, unwritten, rows) for request, unwritten, rows in started]
            is_done = True
        finally:
            if not is_done:
                # What failed half-way keeps the shapes of that batch, in all requests of the compiled model.
                self._requests = []
        return found


def _requests_of(compiled: Any, streams: int) -> list[Any]:  # noqa: ANN401
    return [compiled.create_infer_request() for _ in range(streams)]


def _await(requests: list[Any]) -> None:
    """Wait for all of them, also where one has failed: none is left running."""
    failures = []
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            failures.append(error)
    if failures:
        raise failures[0]


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
