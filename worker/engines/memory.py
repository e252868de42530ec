"""How an engine's lack of memory shows itself, in one error for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.errors import EngineOutOfMemoryError

_MARKS: Final = (
    "bad_alloc",
    "out of memory",
    "out_of_memory",
    "failed to allocate",
    "can't allocate memory",
    "cannot allocate memory",
    "could not create a memory object",  # oneDNN's, under OpenVINO
)


@contextmanager
def memory_errors_told() -> Iterator[None]:
    """Raise what a library says of missing memory in the block as EngineOutOfMemoryError; leave all else as it is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    # Outside the handler: the first error's frames hold the arrays for which there was no room.
    raise EngineOutOfMemoryError("there is no memory for a batch of this size: lower batching.max_tokens")


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` is a library's way to say that memory ran out; torch's own type is a RuntimeError too."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(mark in text for mark in _MARKS)
