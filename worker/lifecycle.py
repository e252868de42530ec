"""How the threads of one worker end together, and what its process has to itself."""

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog

YOUNG_OBJECTS = 10_000
"""How many more objects than now there may be before Python looks for cycles among them: a record makes a dozen, and
none of them is in a cycle. At Python's own 700 the search takes 25 of 84 microseconds per message (2026-11-21)."""

HEAPS = 2
"""glibc gives every few threads a heap of their own, and none takes what another has freed. The Kafka clients' threads
come and go with every broker that is lost: within ten minutes of faults half of the memory was heaps with nothing in
them (2026-11-21)."""
_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""

log = structlog.get_logger(__name__)


class Lifecycle:
    """Two steps to the end: stop (take nothing more in, finish what is there), then abandon (give that up too)."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._abandon = threading.Event()
        self._failure: BaseException | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be taken in."""
        return self._stop.is_set()

    @property
    def is_abandoned(self) -> bool:
        """Whether what is in flight is given up."""
        return self._abandon.is_set()

    @property
    def failure(self) -> BaseException | None:
        """What ended a thread, if anything did."""
        return self._failure

    @property
    def stop_event(self) -> threading.Event:
        """Set once nothing more is to be taken in; for those who wait by themselves."""
        return self._stop

    def stop(self) -> None:
        """Take nothing more in."""
        self._stop.set()

    def abandon(self, failure: BaseException | None = None) -> None:
        """Give up what is in flight: it stays uncommitted. The first `failure` is kept."""
        self._failure = self._failure or failure
        self._stop.set()
        self._abandon.set()

    def thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        """A thread for `work`, to be started; whatever ends it before its time ends the worker."""
        return threading.Thread(target=self._guarded, args=(work, name), name=name, daemon=True)

    def _guarded(self, work: Callable[[], None], name: str) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  whatever it is, the process must not live on without this thread
            self.abandon(error)  # first: the log may be what failed
            log.error("thread.died", thread=name, error=type(error).__name__)  # noqa: TRY400  a traceback may quote texts

    def wait_for_stop(self, seconds: float) -> bool:
        """Block for `seconds`, or until there is reason to stop; whether there is."""
        return self._stop.wait(seconds)

    def wait_for_abandon(self, seconds: float) -> bool:
        """Block for `seconds`, or until work is abandoned; whether it is."""
        return self._abandon.wait(seconds)


def spare_the_collector() -> None:
    """What there is now is there to stay: garbage collection leaves it alone, and looks at the rest less often.

    For a process that does nothing but work, once everything is loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def share_the_heap() -> None:
    """All threads that are started from now on allocate from a few heaps. Does nothing where libc is not glibc."""
    # Only glibc and bionic have mallopt, and bionic knows no such option and refuses it.
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, HEAPS)


def stop_on_signals(stop: Callable[[], None], leave: Callable[[], None]) -> None:
    """The first SIGTERM or SIGINT drains, the second leaves at once, each on a thread of its own.

    Python runs handlers between two steps of the main thread: while that waits in a library there is none. The number
    of a signal is written to a pipe at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_obey, args=(reader, stop, leave), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):  # last: from now on a signal does nothing but be written
        signal.signal(number, _nothing)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Without a handler there would be no number in the pipe."""


def _obey(reader: int, stop: Callable[[], None], leave: Callable[[], None]) -> None:
    is_asked = False
    while numbers := os.read(reader, 1):
        if numbers[0] not in {signal.SIGTERM, signal.SIGINT}:
            continue
        if is_asked:
            leave()
        else:
            stop()
        is_asked = True
