"""What is not wrong about label schemas, and probably not meant either."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from worker.documents import key_path
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema
from worker.messages.binding import Binding


class Notice(NamedTuple):
    """One thing that somebody may want to know."""

    subject: str
    message: str


def schema_notices(schema: LabelSchema, model_digest: str | None) -> Iterator[Notice]:
    """What is odd about a label schema under a model; None: no model is known."""
    calibration = schema.calibration
    if calibration is not None and model_digest is not None and calibration.model != model_digest:
        message = "its calibration was made for another model and is ignored"
        yield Notice(f"label schema {schema.reference}", message)


def route_notices(bindings: Iterable[Binding], labels: LabelRegistry) -> Iterator[Notice]:
    """Routes for labels that the binding's own schema does not have."""
    for binding in bindings:
        schema = labels.find(binding.label_schema) if binding.label_schema is not None else None
        if schema is None:
            continue
        named = schema.label_names | {schema.abstain.label if schema.abstain is not None else None}
        for label in binding.routes:
            if label not in named:
                message = f"routes.{key_path([label])}: label schema {schema.reference} has no such label"
                yield Notice(binding.input, message)
