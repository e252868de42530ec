"""The schemas of predictions as a schema registry gets them: JSON Schema and Avro, from the model of the message.

New fields are optional and have a default, so each version is compatible with those before and after it.
"""

import json
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from worker.messages.outbound import PredictionMessage
from worker.types import JsonValue

NAMESPACE = "nli_stream_worker"

_PRIMITIVES: Mapping[type, str] = {str: "string", bool: "boolean", int: "long", float: "double"}


def prediction_json_schema() -> dict[str, Any]:
    """The JSON Schema of a prediction, closed: a registry then takes a new optional field as compatible."""
    schema = PredictionMessage.model_json_schema(by_alias=True)
    for part in (schema, *schema.get("$defs", {}).values()):
        part["additionalProperties"] = False
    return schema


def prediction_avro_schema() -> dict[str, Any]:
    """The Avro schema of a prediction; the event is a string of JSON in it."""
    return _record(PredictionMessage)


def avro_prediction(message: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A prediction as the Avro schema wants it."""
    event = message.get("event")
    return {**message, "event": None if event is None else json.dumps(event, ensure_ascii=False)}


def _record(model: type[BaseModel]) -> dict[str, Any]:
    fields = [_field(field.alias or name, field) for name, field in model.model_fields.items()]
    name = model.__name__.removesuffix("Message")
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields}


def _field(name: str, field: FieldInfo) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "type": _type(field.annotation)}
    if field.description is not None:
        described["doc"] = field.description
    if not field.is_required():
        described["default"] = field.default
    return described


def _type(annotation: Any) -> Any:  # noqa: ANN401  what a field may be annotated with
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        return ["null", *(_type(each) for each in arguments if each is not type(None))]
    if origin is Literal:
        return _PRIMITIVES[type(arguments[0])]
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if origin is dict:
        return "string"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _record(annotation)
    return _PRIMITIVES[annotation]
