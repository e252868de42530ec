"""Calls that may not come back."""

import gc
import threading
import weakref
from functools import partial

import pytest

from tests.support.wait import wait_until
from worker.kafka.bounded_calls import BoundedCalls, CallOverdueError


class Client:
    """Something that is dear to keep."""


def test_a_call_is_made_and_what_it_raises_comes_back() -> None:
    calls, made = BoundedCalls(), []
    calls.run(lambda: made.append(1))
    assert [1] == made
    with pytest.raises(ZeroDivisionError):
        calls.run(lambda: 1 // 0)
    calls.close()


def test_after_a_call_that_does_not_come_back_the_next_one_is_made() -> None:
    calls, comes_back, made = BoundedCalls(0.05), threading.Event(), []
    with pytest.raises(CallOverdueError):
        calls.run(lambda: comes_back.wait(60))
    calls.run(lambda: made.append(1))
    assert [1] == made
    comes_back.set()
    calls.close()


def test_a_thread_ends_when_it_is_closed_or_its_late_call_comes_back() -> None:
    others = set(threading.enumerate())

    def serving() -> int:
        return len({thread for thread in threading.enumerate() if thread.name == "bounded-calls"} - others)

    calls, comes_back = BoundedCalls(0.05), threading.Event()
    with pytest.raises(CallOverdueError):
        calls.run(lambda: comes_back.wait(60))
    calls.run(lambda: None)
    assert 2 == serving()
    calls.close()
    comes_back.set()
    wait_until(lambda: serving() == 0)


def test_an_idle_thread_keeps_nothing_alive() -> None:
    calls, client = BoundedCalls(), Client()
    seen = weakref.ref(client)
    calls.run(partial(id, client))
    calls.run(lambda: None)  # the thread is through with the first one
    del client
    gc.collect()
    assert seen() is None
    calls.close()


def test_a_call_that_fails_keeps_nothing_alive() -> None:
    """Without the collector: it comes seldom."""
    calls, client = BoundedCalls(), Client()
    seen = weakref.ref(client)
    with pytest.raises(ZeroDivisionError):
        calls.run(partial(lambda _client: 1 / 0, client))
    del client
    assert seen() is None
    calls.close()
