"""Values that are each well formed, and do not go together: refused with what mends them."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.chart import DEFAULTS, SMALL, RefusedError, merged, pod_of, rendered
from worker.config import Config
from worker.processor import JOIN_SECONDS

MINE = {"model": "/models/mine"}
KINDS = "name: kinds\nversion: 3\nlabels: [{name: a}, {name: b}]\n"
TOPIC = {"input": "in", "label_schema": "kinds"}


def with_schemas(topic: Mapping[str, Any], files: Mapping[str, Any], **config: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"config": {"topics": [topic], **config}, "labelSchemas": files}


APART: dict[str, tuple[Mapping[str, Any], str]] = {
    "a GPU and the bundled model": (
        {"gpu": {"enabled": True}},
        "gpu.enabled: the bundled model runs on the CPU.*config.model",
    ),
    "a GPU and the bundled model by name": (
        {"gpu": {"enabled": True}, "config": {"model": "bundled"}},
        "gpu.enabled: the bundled model",
    ),
    "a GPU and an engine of the CPU": (
        {"gpu": {"enabled": True}, "config": {**MINE, "engine": "openvino"}},
        "gpu.enabled: config.engine openvino runs on the CPU",
    ),
    "a drain that is cut off": (
        {"config": {"drain_seconds": 60}},
        r"terminationGracePeriodSeconds: expected at least 75, config.drain_seconds \(60\)",
    ),
    "a grace period for less than the usual drain": (
        {"terminationGracePeriodSeconds": 44},
        r"terminationGracePeriodSeconds: expected at least 45, config.drain_seconds \(30\) and 15 s to end in, not 44",
    ),
    "a label schema of another name": (
        with_schemas({"input": "in", "label_schema": "sorts"}, {"kinds.yaml": KINDS}),
        r"config.topics: in has the label schema sorts, which is none of labelSchemas \(kinds, kinds@3\)",
    ),
    "a label schema of another version": (
        with_schemas({"input": "in", "label_schema": "kinds@4"}, {"kinds.yaml": KINDS}),
        "config.topics: in has the label schema kinds@4",
    ),
    "a label schema and no source": (with_schemas(TOPIC, {}), "there are none.*config.schemas.topic"),
}
TOGETHER: dict[str, Mapping[str, Any]] = {
    "a GPU and a model": {"gpu": {"enabled": True}, "config": {**MINE, "engine": "tensorrt"}},
    "a GPU and a model by a variable": {
        "gpu": {"enabled": True},
        "extraEnv": [{"name": "WORKER_MODEL", "value": "/models/mine"}],
    },
    "no drain, and a short grace period": {"config": {"drain_seconds": 0}, "terminationGracePeriodSeconds": 15},
    "a long drain in a long grace period": {"config": {"drain_seconds": 60.5}, "terminationGracePeriodSeconds": 76},
    "a label schema as text": with_schemas(TOPIC, {"kinds.yaml": KINDS}),
    "a label schema as a map": with_schemas(TOPIC, {"a.yaml": {"name": "kinds", "version": 3}}),
    "a label schema as JSON": with_schemas(TOPIC, {"a.json": '{"name": "kinds", "version": 3}'}),
    "a label schema in its version": with_schemas({"input": "in", "label_schema": "kinds@3"}, {"kinds.yaml": KINDS}),
    "a label schema of a topic": with_schemas(TOPIC, {}, schemas={"topic": "labels"}),
    "a label schema of a topic beside files": with_schemas(
        TOPIC, {"a.yaml": {"name": "a"}}, schemas={"topic": "labels"}
    ),
    "a label schema of a volume": with_schemas(TOPIC, {}, schemas={"directory": "/labels"}),
    "a label schema that only the worker can read": with_schemas(TOPIC, {"a.yaml": "{"}),
    "messages with labels of their own": with_schemas({"input": "in"}, {"kinds.yaml": KINDS}),
}


@pytest.mark.parametrize(("changes", "told"), APART.values(), ids=APART)
def test_values_that_do_not_go_together_are_refused(helm: str, changes: Mapping[str, Any], told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        rendered(helm, merged(SMALL, changes))


@pytest.mark.parametrize("changes", TOGETHER.values(), ids=TOGETHER)
def test_values_that_go_together_are_rendered(helm: str, changes: Mapping[str, Any]) -> None:
    assert "StatefulSet" in rendered(helm, merged(SMALL, changes))


def test_the_usual_grace_period_is_the_drain_and_the_time_to_end(helm: str) -> None:
    """Both stand in the chart as numbers: they are those of the worker."""
    drain = Config.model_fields["drain_seconds"].default
    assert drain + JOIN_SECONDS == DEFAULTS["terminationGracePeriodSeconds"]
    assert drain + JOIN_SECONDS == pod_of(rendered(helm, SMALL))["terminationGracePeriodSeconds"]
