"""A member of a group that is pushed out of it, told by a client that does what a test says."""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import ManualClock
from worker.kafka import consumer as consumer_module
from worker.kafka.clients import ClientSettings
from worker.kafka.consumer import REJOIN_SECONDS, RecordConsumer
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.offsets import Assignment
from worker.types import TopicPartition

LANES = [KafkaPartition("in", 0), KafkaPartition("in", 1)]


def metadata(generation: int, member: str = "member") -> bytes:
    return b"CGMDv2:" + generation.to_bytes(4, sys.byteorder, signed=True) + f"group\0{member}\0\0".encode()


class ScriptedClient:
    """The calls of confluent-kafka's Consumer that a member makes; each poll does the next step of its script."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.membership = metadata(-1, "")
        self.steps: deque[Callable[[], None]] = deque()
        self.callbacks: dict[str, Callable[[Any, Sequence[KafkaPartition]], None]] = {}
        self.errors: list[KafkaError] = []

    def subscribe(self, _topics: Sequence[str], **callbacks: Callable[[Any, Sequence[KafkaPartition]], None]) -> None:
        self.callbacks = callbacks

    def consume(self, _count: int, _seconds: float) -> list[Any]:
        if self.steps:
            self.steps.popleft()()
        errors, self.errors = self.errors, []
        return [Failed(error) for error in errors]

    def consumer_group_metadata(self) -> bytes:
        return self.membership

    def assigned(self, generation: int, *partitions: KafkaPartition) -> None:
        self.membership = metadata(generation)
        self.callbacks["on_assign"](self, partitions)

    def lost(self) -> None:
        self.callbacks["on_lost"](self, LANES)

    def became(self, generation: int) -> None:
        self.membership = metadata(generation)

    def fails(self, error: KafkaError) -> None:
        self.errors.append(error)

    def incremental_assign(self, _partitions: Sequence[KafkaPartition]) -> None: ...
    def incremental_unassign(self, _partitions: Sequence[KafkaPartition]) -> None: ...
    def pause(self, _partitions: Sequence[KafkaPartition]) -> None: ...
    def resume(self, _partitions: Sequence[KafkaPartition]) -> None: ...
    def close(self) -> None: ...


class Failed:
    def __init__(self, error: KafkaError) -> None:
        self._error = error

    def error(self) -> KafkaError:
        return self._error

    def topic(self) -> None: ...
    def partition(self) -> None: ...
    def offset(self) -> None: ...


class Everything:
    """A group that has committed 0 everywhere."""

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)


class Ear:
    """What readiness would say."""

    def __init__(self) -> None:
        self.reasons = {"assignment": "nothing yet"}

    def is_held(self, _partition: TopicPartition) -> bool:
        return False

    def waiting(self, _attempt: int) -> None: ...
    def assigned(self, _partitions: frozenset[TopicPartition]) -> None: ...
    def revoking(self, _partitions: frozenset[TopicPartition]) -> None: ...
    def gone(self, _partitions: frozenset[TopicPartition]) -> None: ...

    def joined(self) -> None:
        self.reasons.pop("assignment", None)

    def complained(self, subject: str, reason: str | None) -> None:
        self.reasons.pop(subject, None)
        if reason is not None:
            self.reasons[subject] = reason


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
        self.clients: list[ScriptedClient] = []
        monkeypatch.setattr(consumer_module, "Consumer", self._make)
        settings: ClientSettings = {"group.protocol": protocol, "group.instance.id": "pod-0"}
        self.clock, self.ear = ManualClock(), Ear()
        group = cast("GroupOffsets", Everything())
        self.consumer = RecordConsumer(settings, group, "earliest", Assignment(), self.clock)
        self.consumer.subscribe(["in"], self.ear)

    def _make(self, settings: ClientSettings) -> ScriptedClient:
        self.clients.append(ScriptedClient(settings))
        return self.clients[-1]

    def polls(self, step: Callable[[], None] = lambda: None) -> dict[str, str]:
        """What readiness says after a poll in which `step` happened."""
        self.clients[-1].steps.append(step)
        self.consumer.poll(10, 0.0)
        return self.ear.reasons


@pytest.fixture(params=["classic", "consumer"])
def scene(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Scene:
    return Scene(monkeypatch, request.param)


def test_a_worker_that_lost_its_partitions_is_not_ready_until_the_group_has_it_again(scene: Scene) -> None:
    client = scene.clients[0]
    assert {} == scene.polls(lambda: client.assigned(1, *LANES))
    for _ in range(3):  # the generation stays what it was until the group answers
        assert "the group has taken the partitions away" in scene.polls(client.lost)["membership"]
        assert ["membership"] == list(scene.polls())
    assert {} == scene.polls(lambda: client.assigned(3, *LANES))


def test_a_worker_that_comes_back_and_gets_nothing_is_ready(scene: Scene) -> None:
    """Under KIP-848 nobody tells it of nothing."""
    client = scene.clients[0]
    scene.polls(lambda: client.assigned(1, *LANES))
    scene.polls(client.lost)
    is_classic = client.settings["group.protocol"] == "classic"
    assert {} == scene.polls(lambda: client.assigned(3) if is_classic else client.became(3))


@pytest.mark.parametrize("scene", ["consumer"], indirect=True)
def test_a_generation_that_was_given_up_and_comes_again_is_a_new_one(scene: Scene) -> None:
    """The epochs of a group that was forgotten begin anew."""
    client = scene.clients[0]
    scene.polls(lambda: client.assigned(1, *LANES))
    scene.polls(client.lost)
    assert ["membership"] == list(scene.polls(lambda: client.became(0)))
    assert {} == scene.polls(lambda: client.became(1))


@pytest.mark.parametrize("scene", ["classic"], indirect=True)
def test_a_new_member_id_with_the_old_generation_is_no_membership(scene: Scene) -> None:
    client = scene.clients[0]
    scene.polls(lambda: client.assigned(2, *LANES))
    scene.polls(client.lost)
    assert ["membership"] == list(scene.polls(lambda: client.became(2)))
    assert ["membership"] == list(scene.polls(lambda: client.became(3)))


def test_who_is_not_in_the_group_yet_is_not_ready_and_without_partitions_is(scene: Scene) -> None:
    client = scene.clients[0]
    assert ["assignment"] == list(scene.polls())
    assert ["assignment"] == list(scene.polls(lambda: client.became(0)))
    is_classic = client.settings["group.protocol"] == "classic"
    assert {} == scene.polls(lambda: client.assigned(1) if is_classic else client.became(1))


def test_partitions_that_go_in_order_leave_a_worker_ready(scene: Scene) -> None:
    client = scene.clients[0]
    scene.polls(lambda: client.assigned(1, *LANES))
    assert {} == scene.polls(lambda: client.callbacks["on_revoke"](client, LANES))
    assert {} == scene.polls(lambda: client.became(2))


@pytest.mark.parametrize("scene", ["consumer"], indirect=True)
def test_a_name_that_the_group_still_holds_is_the_reason_until_it_is_let_go_of(scene: Scene) -> None:
    unreleased = KafkaError(KafkaError._FATAL, "Fatal: the instance ID is still used by another member")
    first = scene.clients[0]
    scene.polls(lambda: first.assigned(1, *LANES))
    assert "kafka.instance_id pod-0" in scene.polls(lambda: first.fails(unreleased))["membership"]
    scene.clock.advance(REJOIN_SECONDS)
    assert ["membership"] == list(scene.polls())
    assert {} == scene.polls(lambda: scene.clients[1].assigned(1, *LANES))
