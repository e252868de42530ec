"""What libraries say when memory runs out becomes one error; everything else stays as it is."""

import pytest

from worker.engines.memory import with_memory_errors_told
from worker.errors import EngineOutOfMemoryError


class OutOfMemoryError(RuntimeError):
    """As torch's, by name and by base."""


def fail_with(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a memory object"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_missing_memory_is_told_as_such_and_keeps_hold_of_nothing(error: Exception) -> None:
    with pytest.raises(EngineOutOfMemoryError) as told:
        with_memory_errors_told(lambda: fail_with(error))
    assert (None, None) == (told.value.__cause__, told.value.__context__)


@pytest.mark.parametrize(
    "error", [RuntimeError("wrong shape"), ValueError("out of memory, says a text"), KeyError("a")]
)
def test_any_other_error_is_left_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as told:
        with_memory_errors_told(lambda: fail_with(error))
    assert error is told.value


def test_a_block_that_works_is_left_alone() -> None:
    assert 7 == with_memory_errors_told(lambda: 7)
