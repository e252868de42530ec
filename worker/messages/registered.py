"""The schemas of predictions as a schema registry gets them: JSON Schema and Avro, from the model of the message.

That in Protobuf is in `registered_protobuf`.

New fields are optional and have a default, so each version is compatible with those before and after it.
"""

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from worker.messages.outbound import PredictionMessage
from worker.types import JsonValue

NAMESPACE = "nli_stream_worker"

_EVENT = b',"event":'
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


def with_event_as_text(body: bytes) -> dict[str, JsonValue]:
    """A prediction from its JSON as Avro and Protobuf want it: its event is a string, byte for byte as it came.

    Raises:
        ValueError: it is not JSON.
    """
    # The codec writes the event last, and no field before it has or holds one of this name. Read as JSON and written
    # again, the event would not be what it was: 1.10, or an integer of more than 64 bits.
    head, found, event = body.partition(_EVENT)
    if not found:
        whole: dict[str, JsonValue] = orjson.loads(body)
        return whole
    return {**orjson.loads(head + b"}"), "event": event[:-1].decode("utf-8")}


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
