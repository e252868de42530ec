"""Calls into the Kafka client that are given up when they do not come back.

librdkafka looks at the timeout of `rd_kafka_send_offsets_to_transaction` in parts of its way only: while it waits for
the group's coordinator it blocks for as long as that is away, and now and then for ever (librdkafka#5456, #5511).
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

OVERDUE_SECONDS = 10.0
"""How long a call may take that was asked to come back after two."""

_Answer = SimpleQueue[Exception | None]
_Call = tuple[Callable[[], Any], _Answer]


class CallOverdueError(Exception):
    """A call did not come back in time. What it uses is its own now: no other call may wait for it."""


class BoundedCalls:
    """Makes calls on a thread of its own, which is left behind with a call that does not come back.

    Used by one thread at a time.
    """

    def __init__(self, most_seconds: float = OVERDUE_SECONDS) -> None:
        """No call is waited for longer than `most_seconds`."""
        self._most_seconds = most_seconds
        self._calls: SimpleQueue[_Call | None] | None = None

    def run(self, call: Callable[[], Any]) -> None:
        """Make `call`, and raise what it raises. Blocks.

        Raises:
            CallOverdueError: it did neither in time, and goes on by itself.
        """
        answer: _Answer = SimpleQueue()
        self._thread().put((call, answer))
        try:
            error = answer.get(timeout=self._most_seconds)
        except Empty:
            self.close()
            raise CallOverdueError from None
        try:
            if error is not None:
                raise error
        finally:
            del error  # or it and its frames would hold each other, and what was called, until the collector comes

    def close(self) -> None:
        """Let the thread end, now or when its call comes back."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.put(None)

    def _thread(self) -> SimpleQueue[_Call | None]:
        if self._calls is None:
            self._calls = SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name="bounded-calls", daemon=True).start()
        return self._calls


def _serve(calls: SimpleQueue[_Call | None]) -> None:
    while (asked := calls.get()) is not None:
        call, answer = asked
        outcome: Exception | None = None
        try:
            call()
        except Exception as error:  # noqa: BLE001  raised on the thread that asked
            outcome = error.with_traceback(None)
        # Before the answer: neither an idle thread nor the frames of an error may keep a client that is to go.
        del asked, call
        answer.put(outcome)
        del answer, outcome
