"""The last stable offset of every owned partition, asked of the broker: what lag is measured against.

The client knows the end of a partition only as of its last fetch, and fetches nothing of a partition that is paused:
just when the worker is too slow, its own idea of the lag would stand still.
"""

from collections.abc import Callable, Mapping

from confluent_kafka import IsolationLevel
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without saying so

from worker.kafka.clients import ClientSettings, checked_settings
from worker.kafka.offsets import Assignment
from worker.types import TopicPartition

LOOK_SECONDS = 2.0
REQUEST_SECONDS = 5.0


class StableEnds:
    """Asks now and then; `ends` answers at once. `run` is a thread."""

    def __init__(self, client: ClientSettings, assignment: Assignment) -> None:
        """`client` holds librdkafka's connection settings."""
        self._client = dict(client)
        self._admin = self._connected()
        self._assignment = assignment
        self._ends: Mapping[TopicPartition, int] = {}

    def ends(self) -> Mapping[TopicPartition, int]:
        """The last stable offset of partitions as of the latest answer; no entry where there was none yet."""
        return self._ends

    def run(self, wait_for_stop: Callable[[float], bool]) -> None:
        """Look until `wait_for_stop(seconds)` says so."""
        while not wait_for_stop(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Ask the broker once; what it does not answer stays as it was. Blocks."""
        owned = self._assignment.partitions()
        known = {partition: end for partition, end in self._ends.items() if partition in owned}
        if owned:
            known |= self._asked(owned)
        self._ends = known

    def _asked(self, partitions: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own
        wanted = {KafkaPartition(*partition): latest for partition in sorted(partitions)}
        answered: dict[TopicPartition, int] = {}
        admin = self._admin
        futures = admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_SECONDS
        )
        for asked, future in futures.items():
            # Not raised: the frame in its traceback would hold the client, and the garbage collector comes seldom.
            if future.exception() is None:
                answered[TopicPartition(asked.topic, asked.partition)] = future.result().offset
        if not answered:  # a client whose broker was down once may never find it again
            self._admin = self._connected()
        return answered

    def _connected(self) -> AdminClient:
        with checked_settings():
            return AdminClient(self._client)
