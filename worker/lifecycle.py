"""How the threads of one worker end together."""

import threading


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

    def wait_for_stop(self, seconds: float) -> bool:
        """Block for `seconds`, or until there is reason to stop; whether there is."""
        return self._stop.wait(seconds)

    def wait_for_abandon(self, seconds: float) -> bool:
        """Block for `seconds`, or until work is abandoned; whether it is."""
        return self._abandon.wait(seconds)
