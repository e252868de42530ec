"""The schema of predictions in Protobuf, from the model of the message: its text, and what goes into a message."""

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from worker.messages.outbound import (
    ModelField,
    PairsField,
    PredictionMessage,
    SchemaField,
    ScoreField,
    SourceField,
    TextField,
)
from worker.messages.registered import NAMESPACE

NUMBERED: Mapping[type[BaseModel], tuple[str, ...]] = {
    PredictionMessage: (
        *("contract", "id", "mode", "label", "selected", "scores", "template_spread", "schema", "model", "source"),
        *("text", "pairs", "scored_at", "event", "event_base64", "event_omitted"),
    ),
    ScoreField: ("label", "score", "path"),
    SchemaField: ("name", "version", "digest"),
    ModelField: ("name", "digest", "engine", "precision", "calibrated"),
    SourceField: ("topic", "partition", "offset", "timestamp"),
    TextField: ("tokens", "tokens_dropped", "windows"),
    PairsField: ("scored", "cached", "skipped"),
}
"""Fields in the order of their numbers, from 1. Numbers are for ever: a new field goes to the end of its line."""

_PRIMITIVES: Mapping[type, str] = {str: "string", bool: "bool", int: "int64", float: "double"}


def prediction_proto() -> str:
    """The `.proto` file of a prediction; the event is a string of JSON in it."""
    head = ('syntax = "proto3";', f"package {NAMESPACE};", "")
    return "\n".join((*head, *_message(PredictionMessage))) + "\n"


def _message(model: type[BaseModel]) -> Iterator[str]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    yield f"message {_name(model)} {{"
    for nested in dict.fromkeys(_model_of(field.annotation) for field in fields.values()):
        if nested is not None:
            yield from (f"  {line}" for line in _message(nested))
    for number, name in enumerate(NUMBERED[model], start=1):
        yield f"  // {fields[name].description}"
        yield f"  {_type(fields[name])} {name} = {number};"
    yield "}"


def _type(field: FieldInfo) -> str:
    inner = _inner(field.annotation)
    if get_origin(inner) is tuple:
        return f"repeated {_word(get_args(inner)[0])}"
    return _word(inner) if inner is field.annotation else f"optional {_word(inner)}"


def _inner(annotation: Any) -> Any:  # noqa: ANN401  what a field may be annotated with
    """What a field holds where it is not null."""
    if get_origin(annotation) not in {Union, types.UnionType}:
        return annotation
    (inner,) = (each for each in get_args(annotation) if each is not type(None))
    return inner


def _word(annotation: Any) -> str:  # noqa: ANN401  as above
    if get_origin(annotation) is Literal:
        return _PRIMITIVES[type(get_args(annotation)[0])]
    if get_origin(annotation) is dict:
        return "string"
    model = _model_of(annotation)
    return _PRIMITIVES[annotation] if model is None else _name(model)


def _model_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  as above
    inner = _inner(annotation)
    inner = get_args(inner)[0] if get_origin(inner) is tuple else inner
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _name(model: type[BaseModel]) -> str:
    return model.__name__.removesuffix("Message").removesuffix("Field")
