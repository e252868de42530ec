"""What is said without refusing anything."""

from worker.labels.notices import route_notices, schema_notices
from worker.labels.registry import LabelRegistry
from worker.labels.schema import parse_schema
from worker.messages.binding import Binding

MODEL, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SCHEMA = parse_schema(
    {
        "name": "a",
        "version": 1,
        "labels": [{"name": "x", "children": [{"name": "y"}]}],
        "abstain": {"label": "other"},
        "calibration": {"model": MODEL},
    },
    "test",
)


def test_a_route_for_a_label_that_the_schema_does_not_have_is_told() -> None:
    labels = LabelRegistry()
    labels.offer(SCHEMA)
    routes = {"x": "1", "y": "2", "other": "3", "gone": "4"}
    binding = Binding.model_validate({"input": "in", "label_schema": "a", "routes": routes})
    [notice] = route_notices([binding], labels)
    assert ("in", "routes.gone: label schema a@1 has no such label") == notice


def test_nothing_is_said_of_routes_where_messages_bring_their_labels() -> None:
    assert [] == list(route_notices([Binding.model_validate({"input": "in", "routes": {"x": "1"}})], LabelRegistry()))


def test_a_calibration_that_is_ignored_is_told() -> None:
    [notice] = schema_notices(SCHEMA, OTHER)
    assert ("label schema a@1", "its calibration was made for another model and is ignored") == notice
    assert [] == [*schema_notices(SCHEMA, MODEL), *schema_notices(SCHEMA, None)]
