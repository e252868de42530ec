"""Whether the group has us: what readiness says of a worker whose partitions were taken and that is not back yet."""

from collections.abc import Callable

from worker.kafka.offsets import generation_of

LOST = "the group has taken the partitions away, and this worker is not a member again yet"


class MembershipWatch:
    """Hears of a loss and finds out when it is over. Belongs to the poll thread.

    Under the classic protocol whoever joins is told what it is assigned, nothing included. Under KIP-848 a member that
    is to have nothing is told nothing: that the group has taken it in is seen by its generation alone.
    """

    def __init__(self, group_protocol: str, tell: Callable[[str | None], None], joined: Callable[[], None]) -> None:
        """`tell(reason)` is told of a loss, and None when it is over; `joined()` is called each time we are in."""
        self._is_told_of_nothing = group_protocol == "consumer"
        self._tell = tell
        self._joined = joined
        self._is_in = False
        self._former = 0

    def lost(self, membership: bytes) -> None:
        """All partitions were lost; `membership` is what the client says just then, which is the former one's."""
        self._is_in, self._former = False, generation_of(membership)
        self._tell(LOST)

    def assigned(self) -> None:
        """The group has told us what we have."""
        self._is_in = True
        self._tell(None)
        self._joined()

    def note(self, membership: bytes) -> None:
        """What the client says of our membership now."""
        if self._is_in or not self._is_told_of_nothing:
            return
        generation = generation_of(membership)
        if generation <= 0:
            self._former = 0
        elif generation != self._former:
            self.assigned()
