"""What is published for a record: the prediction, its copies, and what their headers say."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from worker.clock import ManualClock
from worker.errors import ErrorCode, MessageError
from worker.labels.schema import parse_schema
from worker.messages.binding import Binding
from worker.messages.bindings import Bindings
from worker.messages.codec import record_bytes
from worker.outgoing import Outgoing
from worker.pipeline.assembly import Scored
from worker.pipeline.decision import decide
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import plan_pairs
from worker.types import JsonValue, ModelStamp, NliHead, OutboundRecord, Record, Request, TokenSpan

MODEL = ModelStamp("tiny", "sha256:bb", "fake", "float32")
VIEW = ModelView(NliHead(classes=2, entailment=0, contradiction=1), MODEL.digest)
NOW_SECONDS = 1_700_000_000.0
ROUTES = {"billing": "billing.queue", "other": "unsure.queue"}


def published(
    *logits: float,
    document: Mapping[str, JsonValue] | None = None,
    age_seconds: float = 0.0,
    record_changes: Mapping[str, object] | None = None,
    max_bytes: int = 1_000_000,
    **binding: object,
) -> tuple[OutboundRecord, ...]:
    labels: JsonValue = [{"name": "billing"}, {"name": "bug"}]
    schema = parse_schema({"name": "a", "version": 1, "labels": labels, **(document or {})}, "test")
    plan = plan_pairs(Request("id", "text"), schema, 10)
    stage = ScoredStage(plan, np.array([[[logit, 0.0] for logit in logits]], np.float32))
    given = {"value": b'{"text":"x"}', "headers": (), **(record_changes or {})}
    record = Record("in", 3, 7, 1, b"k", timestamp_ms=int((NOW_SECONDS - age_seconds) * 1000), **given)  # type: ignore[arg-type]
    bindings = Bindings((Binding.model_validate({"input": "in", **binding}),))
    outgoing = Outgoing(bindings, MODEL, ManualClock(NOW_SECONDS), lambda _: max_bytes)
    return outgoing.predictions(decide([stage], TokenSpan(1, 0), VIEW), Scored(record, (stage,), TokenSpan(1, 0)))


def header(record: OutboundRecord, name: str) -> list[bytes | None]:
    return [value for key, value in record.headers if key == name]


def test_a_selected_label_with_a_route_gives_a_copy_that_says_so() -> None:
    main, copy = published(1.0, 0.0, routes=ROUTES)
    assert ("in.predictions", "billing.queue") == (main.topic, copy.topic)
    assert [] == header(main, "nli-routed")
    assert [b"billing"] == header(copy, "nli-routed")
    assert (main.key, main.value, main.timestamp_ms, main.source) == (
        copy.key,
        copy.value,
        copy.timestamp_ms,
        copy.source,
    )


def test_a_label_without_a_route_gives_no_copy() -> None:
    assert ["in.predictions"] == [each.topic for each in published(0.0, 1.0, routes=ROUTES)]


def test_an_abstention_takes_the_route_of_its_label() -> None:
    abstain: JsonValue = {"below": 0.9, "label": "other"}
    main, copy = published(1.0, 0.0, document={"abstain": abstain}, routes=ROUTES)
    assert "other" == json.loads(main.value or b"")["label"]
    assert ("unsure.queue", [b"other"]) == (copy.topic, header(copy, "nli-routed"))


def test_every_selected_label_gives_a_copy_of_its_own() -> None:
    routes = {"billing": "queue", "bug": "queue"}
    _, *copies = published(1.0, 2.0, document={"multi_label": True}, routes=routes)
    assert [("queue", [b"bug"]), ("queue", [b"billing"])] == [(c.topic, header(c, "nli-routed")) for c in copies]


def test_a_copy_that_does_not_fit_refuses_the_whole_record() -> None:
    """All or nothing: no copy is ever missing."""
    [alone] = published(1.0, 0.0, emit="prediction")
    size = record_bytes(alone.key, alone.value, alone.headers)
    assert (alone,) == published(1.0, 0.0, max_bytes=size, emit="prediction")
    with pytest.raises(MessageError) as refusal:
        published(1.0, 0.0, max_bytes=size, emit="prediction", routes=ROUTES)
    assert ErrorCode.OUTPUT_TOO_LARGE is refusal.value.code


def test_a_late_record_is_marked_with_its_age_where_that_is_asked_for() -> None:
    [late] = published(1.0, 0.0, age_seconds=60.9, max_age_seconds=60, late="mark")
    assert [b"60"] == header(late, "nli-late")
    [in_time] = published(1.0, 0.0, age_seconds=60.0, max_age_seconds=60, late="mark")
    [unmarked] = published(1.0, 0.0, age_seconds=61, max_age_seconds=60, late="predict")
    assert ([], []) == (header(in_time, "nli-late"), header(unmarked, "nli-late"))


def test_what_an_event_brings_of_these_headers_is_not_true_of_its_prediction() -> None:
    earlier = {"headers": (("nli-late", b"9"), ("nli-routed", b"spam"), ("x", b"y"))}
    main, copy = published(1.0, 0.0, record_changes=earlier, routes=ROUTES)
    assert ([], [], [b"y"]) == (header(main, "nli-late"), header(main, "nli-routed"), header(main, "x"))
    assert [b"billing"] == header(copy, "nli-routed")
