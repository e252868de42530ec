"""What a consumer group has committed, asked without being its member."""

from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.kafka.clients import ClientSettings, checked_settings
from worker.types import TopicPartition


class GroupOffsets:
    """What the group has committed, asked over a connection of its own. Thread-safe.

    Not over the worker's consumer: confluent-kafka lets no other thread use it while one is inside `consume`.
    """

    def __init__(self, client: ClientSettings, group_id: str, *, timeout_seconds: float = 5.0) -> None:
        """`client` holds librdkafka's connection settings."""
        self._client = dict(client)
        self._group_id = group_id
        self._timeout_seconds = timeout_seconds

    @property
    def client(self) -> ClientSettings:
        """What librdkafka needs to connect: never to be printed."""
        return dict(self._client)

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Committed offsets, once no transaction is open on them; no entry where there is none. Blocks.

        Raises:
            KafkaException: the coordinator does not answer, or a transaction is still open: not known, ask again.
        """
        wanted = [KafkaPartition(*partition) for partition in partitions]
        answer = ask_committed(self._client, self._group_id, wanted, self._timeout_seconds) if wanted else []
        return {TopicPartition(each.topic, each.partition): each.offset for each in answer if each.offset >= 0}


def ask_committed(
    client: ClientSettings, group_id: str, wanted: Sequence[KafkaPartition], timeout_seconds: float
) -> list[KafkaPartition]:
    """What the group has committed of `wanted`: a negative offset for nothing, the commit's metadata with it. Blocks.

    By a consumer that is never subscribed, made for this one question. An AdminClient has the same question, but where
    the broker it asked is not, or no longer, the coordinator, librdkafka up to 2.16 turns to the consumer group of that
    client, which has none, and the process ends by SIGSEGV. Nor does it ever find a coordinator again that was down.

    Raises:
        KafkaException: the coordinator does not answer, does not let us, or a transaction is still open.
    """
    settings: ClientSettings = {
        **client,
        "group.id": group_id,
        "group.protocol": "classic",  # where it asks as nobody: it is no member of the group, whatever its protocol is
        "enable.auto.commit": False,
        "isolation.level": "read_committed",  # asks for stable offsets only
    }
    with checked_settings():
        consumer = Consumer(settings)
    try:
        answer = consumer.committed(list(wanted), timeout=timeout_seconds)
    finally:
        consumer.close()
    for each in answer:
        if each.error is not None:
            raise KafkaException(each.error)
    return answer
