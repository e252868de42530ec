"""How an engine's lack of memory shows itself, in one error for all of them."""

from collections.abc import Callable
from typing import Final, TypeVar

from worker.errors import EngineOutOfMemoryError

Result = TypeVar("Result")

_MARKS: Final = (
    "bad_alloc",
    "out of memory",
    "out_of_memory",
    "outofmemory",  # TensorRT's
    "failed to allocate",
    "can't allocate memory",
    "cannot allocate memory",
    "could not create a memory object",  # oneDNN's, under OpenVINO
)


def with_memory_errors_told(work: Callable[[], Result]) -> Result:
    """What `work` gives; what a library in it says of missing memory comes as EngineOutOfMemoryError.

    Raises:
        EngineOutOfMemoryError: the memory ran out.
    """
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: the first error's frames hold the arrays for which there was no room.
    raise EngineOutOfMemoryError("there is no memory for a batch of this size: lower batching.max_tokens")


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` is a library's way to say that memory ran out; torch's own type is a RuntimeError too."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(mark in text for mark in _MARKS)
