"""Inputs stay closed while something they write to is missing."""

from collections.abc import Iterable, Mapping
from typing import cast

import pytest

from tests.support.scripted_kafka import KnownTopics
from worker.errors import RetryableError
from worker.kafka.topics import TopicDirectory
from worker.messages.binding import Binding
from worker.messages.bindings import Bindings
from worker.observability.health import Readiness
from worker.output_watch import CLOSED_SECONDS, OPEN_SECONDS, OutputWatch, Wiring

OUTPUTS = {"a": frozenset({"a.out", "a.dlq"}), "b": frozenset({"b.out", "b.dlq"})}
ALL = {"a", "a.out", "a.dlq", "b", "b.out", "b.dlq"}


class Directory(KnownTopics):
    """Topics that exist, can be created, and whose broker can be silent."""

    is_silent = False
    forbidden: frozenset[str] = frozenset()

    def refresh(self, _topics: Iterable[str]) -> None:
        if self.is_silent:
            raise RetryableError("no broker answers")

    def create(self, topics: Mapping[str, int]) -> None:
        if self.forbidden & topics.keys():
            raise RetryableError("topic could not be created")
        self.names |= topics.keys()


class Scene:
    def __init__(self, names: set[str], *, create: bool = False) -> None:
        self.directory = Directory(names)
        self.readiness = Readiness()
        self.beats = 0
        directory = cast("TopicDirectory", self.directory)
        self.watch = OutputWatch(directory, Wiring(lambda _existing: OUTPUTS, create), self.readiness, self.beat)

    def beat(self) -> None:
        self.beats += 1


def test_before_the_first_answer_all_inputs_are_closed_and_the_worker_is_not_ready() -> None:
    scene = Scene(ALL)
    assert not scene.watch.is_open("a")
    assert 2 == len(scene.readiness.reasons())


def test_inputs_open_when_all_their_topics_are_there() -> None:
    scene = Scene(ALL)
    assert scene.watch.look()
    assert scene.watch.is_open("a")
    assert () == scene.readiness.reasons()


@pytest.mark.parametrize("missing", ["a", "a.out", "a.dlq"])
def test_a_missing_topic_closes_only_the_input_that_writes_to_it(missing: str) -> None:
    scene = Scene(ALL - {missing})
    assert not scene.watch.look()
    assert not scene.watch.is_open("a")
    assert scene.watch.is_open("b")
    expected = f"topic:a: a: waiting for {missing}: create it or grant Describe on it, or set kafka.create_topics"
    assert (expected,) == scene.readiness.reasons()


def test_an_input_closes_when_its_output_goes_and_opens_when_it_is_back() -> None:
    scene = Scene(set(ALL))
    scene.watch.look()
    scene.directory.names.remove("a.out")
    scene.watch.look()
    assert not scene.watch.is_open("a")
    scene.directory.names.add("a.out")
    scene.watch.look()
    assert scene.watch.is_open("a")
    assert () == scene.readiness.reasons()


def test_a_silent_broker_leaves_what_is_open_open_and_says_why_it_is_not_ready() -> None:
    scene = Scene(ALL)
    scene.watch.look()
    scene.directory.is_silent = True
    assert not scene.watch.look()
    assert scene.watch.is_open("a")
    assert ("broker: no broker answers",) == scene.readiness.reasons()


def test_missing_outputs_are_created_where_asked_but_never_an_input() -> None:
    scene = Scene({"a"}, create=True)
    scene.watch.look()
    assert {"a", "a.out", "a.dlq"} == scene.directory.names
    assert scene.watch.is_open("a")
    assert not scene.watch.is_open("b")


def test_a_topic_that_cannot_be_created_holds_up_its_own_input_only() -> None:
    scene = Scene({"a", "b"}, create=True)
    scene.directory.forbidden = frozenset({"a.dlq"})
    scene.watch.look()
    assert not scene.watch.is_open("a")
    assert scene.watch.is_open("b")


class PatternScene:
    """A worker that reads what begins with `in.`, and writes `{topic}.predictions` and `{topic}.dlq`."""

    def __init__(self, *names: str, create: bool = True) -> None:
        bindings = Bindings((Binding(input=r"^in\."),))
        self.directory = Directory(names)
        self.readiness = Readiness()
        wiring = Wiring(bindings.outputs, create, bindings.patterns, bindings.rivals)
        self.watch = OutputWatch(cast("TopicDirectory", self.directory), wiring, self.readiness, lambda: None)


def test_what_a_pattern_matches_is_read_once_its_outputs_are_there() -> None:
    scene = PatternScene("in.a", "other")
    assert scene.watch.look()
    assert ("in.a",) == scene.watch.inputs()
    assert scene.watch.is_open("in.a")
    scene.directory.names.add("in.b")
    assert scene.watch.look()
    assert ("in.a", "in.b") == scene.watch.inputs()
    assert {"in.b.predictions", "in.b.dlq"} <= scene.directory.names


def test_what_was_written_for_a_match_is_not_matched_in_its_turn() -> None:
    scene = PatternScene("in.a")
    for _ in range(3):
        scene.watch.look()
    assert {"in.a", "in.a.predictions", "in.a.dlq"} == scene.directory.names
    assert ("in.a",) == scene.watch.inputs()


def test_a_pattern_without_a_match_keeps_a_worker_that_reads_nothing_else_from_being_ready() -> None:
    scene = PatternScene("other")
    scene.watch.look()
    assert (r"topic:^in\.: ^in\.: no topic matches yet",) == scene.readiness.reasons()
    scene.directory.names.add("in.a")
    scene.watch.look()
    assert () == scene.readiness.reasons()


def test_a_topic_that_is_gone_for_two_looks_is_no_longer_read() -> None:
    scene = PatternScene("in.a", "in.b")
    scene.watch.look()
    scene.directory.names.remove("in.a")
    scene.watch.look()
    assert ("in.b", "in.a") == scene.watch.inputs()
    assert not scene.watch.is_open("in.a")
    scene.watch.look()
    assert ("in.b",) == scene.watch.inputs()
    assert () == scene.readiness.reasons()


def test_it_looks_often_while_something_is_missing_and_shows_that_it_lives() -> None:
    scene = Scene(ALL - {"a.dlq"})
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        scene.directory.names.add("a.dlq")
        return len(waited) == 2

    scene.watch.run(wait)
    assert [CLOSED_SECONDS, OPEN_SECONDS] == waited
    assert scene.beats >= 2
