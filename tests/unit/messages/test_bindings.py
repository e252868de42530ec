"""Every topic has at most one binding, and none has it that this configuration writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.messages.binding import Binding
from worker.messages.bindings import Bindings


def bindings(*inputs: str | dict[str, object], reserved: frozenset[str] = frozenset()) -> Bindings:
    made = (Binding.model_validate({"input": each} if isinstance(each, str) else each) for each in inputs)
    return Bindings(tuple(made), reserved)


def test_a_topic_is_bound_by_its_name_before_any_pattern_and_then_by_the_first_pattern() -> None:
    found = bindings(
        {"input": "^a", "label_schema": "first"},
        {"input": "^a.b", "label_schema": "second"},
        {"input": "a.b", "label_schema": "own", "output": "elsewhere"},
    )
    assert "own" == found["a.b"].label_schema
    assert "first" == found["a.bc"].label_schema
    assert ("^a", "^a.b") == found.rivals("a.bc")
    assert () == found.rivals("a.b")
    assert found.find("b") is None


def test_a_match_has_the_bindings_topics_under_its_own_name() -> None:
    found = bindings({"input": r"^support\.", "output": "out.{topic}", "dead_letter": "{topic}.dead"})["support.eu"]
    assert ("support.eu", "out.support.eu", "support.eu.dead") == (
        found.input,
        found.output_topic,
        found.dead_letter_topic,
    )


@pytest.mark.parametrize(
    "topic",
    [
        "in.a.predictions",
        "in.a.dlq",
        "in.a.predictions.dlq",
        "in.a.predictions.predictions",
        "in.queue",
        "in.labels",
        "in.fixed",
        "__consumer_offsets",
    ],
)
def test_what_is_written_or_is_kafkas_own_is_never_read(topic: str) -> None:
    routed: dict[str, object] = {"input": "^(in|__)", "routes": {"billing": "in.queue"}}
    found = bindings(routed, {"input": "named", "output": "in.fixed"}, reserved=frozenset({"in.labels"}))
    assert found.find(topic) is None
    assert frozenset({"named", "in.a"}) == found.inputs([topic, "in.a"])


def test_a_name_that_only_looks_as_if_it_were_written_is_read() -> None:
    found = bindings(r"^support\.", {"input": "support.a", "output": "elsewhere", "dead_letter": "elsewhere.dlq"})
    assert found.find("support.predictions") is not None, "`support` itself does not match"
    assert found.find("support.a.predictions") is not None, "`support.a` is bound by name and writes elsewhere"
    assert found.find("support.b.predictions") is None


def test_a_name_that_stands_twice_in_an_output_is_recognised() -> None:
    found = bindings({"input": "^", "output": "{topic}-{topic}"})
    assert found.find("a-a") is None
    assert found.find("a-b") is not None


_names = st.text("ab.", min_size=1, max_size=6).filter(lambda name: name not in {".", ".."})
_templates = st.sampled_from(["{topic}.out", "p.{topic}", "{topic}{topic}", "{topic}b", "a{topic}"])


@given(st.sampled_from(["^", "^a", "^b", "^.*b$"]), _templates, _templates, st.lists(_names, max_size=8))
def test_whatever_the_templates_no_input_is_an_output(
    pattern: str, output: str, dead_letter: str, names: list[str]
) -> None:
    if output == dead_letter:
        return
    found = bindings({"input": pattern, "output": output, "dead_letter": dead_letter})
    existing = set(names)
    for _ in range(3):  # the worker creates its outputs, and looks again
        outputs = found.outputs(existing)
        existing |= {topic for topics in outputs.values() for topic in topics}
    written = {topic for topics in found.outputs(existing).values() for topic in topics}
    assert not written & found.inputs(existing)
    assert found.inputs(names) == found.inputs(existing)
