"""The JSON Schemas of what people and programs write and read, generated: `python -m worker.labels.json_schema`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from worker.labels.schema import LabelSchema
from worker.messages.inbound import InputMessage
from worker.messages.outbound import PredictionMessage
from worker.messages.reference import INLINE

FOLDER = Path("schemas/messages")
"""Where they are kept. Not beside label schemas, which a worker may read as a folder."""

_Rules = Mapping[str, Any]

_IS_MULTI: _Rules = {"properties": {"multi_label": {"const": True}}, "required": ["multi_label"]}
_IS_WINDOWS: _Rules = {"properties": {"strategy": {"const": "windows"}}, "required": ["strategy"]}
_HAS_CHILDREN: _Rules = {"properties": {"children": {"minItems": 1}}, "required": ["children"]}


def _without(*keys: str) -> _Rules:
    return {"properties": dict.fromkeys(keys, False)}


def _has(key: str) -> _Rules:
    return {"properties": {key: {"type": "object"}}, "required": [key]}


_WITHOUT_NEGATIVE: _Rules = {
    "description": "A label of a schema that is not `multi_label`, and what it divides into.",
    "properties": {"negative": {"type": "null"}, "children": {"items": {"$ref": "#/$defs/LabelWithoutNegative"}}},
}
_UNLISTED: _Rules = {"properties": {"threshold": {"type": "null"}, "children": {"maxItems": 0}}}
_LABEL_SCHEMA_RULES: tuple[_Rules, ...] = (
    {"properties": {"name": {"not": {"const": INLINE}}}},
    {
        "if": _IS_MULTI,
        "then": {"properties": {"abstain": {"type": "null"}}},
        "else": {"properties": {"labels": {"items": {"$ref": "#/$defs/LabelWithoutNegative"}}}},
    },
    {"if": _has("hierarchy"), "then": {"properties": {"labels": {"contains": _HAS_CHILDREN}}}},
    {
        "if": {"allOf": [_IS_MULTI, _has("shortlist")]},
        "then": {"properties": {"labels": {"items": _UNLISTED}}},
    },
    {
        "if": _has("long_text"),
        "then": {"properties": {"long_text": {"if": _IS_WINDOWS, "else": _without("overlap_tokens", "aggregate")}}},
    },
)
"""Keys that are each well formed, and do not go together: what the parser refuses and a JSON Schema can say."""

_MODELS: dict[str, type[BaseModel]] = {
    "input.json": InputMessage,
    "label-schema.json": LabelSchema,
    "prediction.json": PredictionMessage,
}


def json_schemas() -> dict[str, str]:
    """The text of every file, by its name."""
    return {name: _text(model) for name, model in _MODELS.items()}


def main(arguments: Sequence[str]) -> None:
    """Write every file into the folder that is the only argument, or into `FOLDER`."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in json_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


def _text(model: type[BaseModel]) -> str:
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    if model is LabelSchema:
        schema["$defs"]["LabelWithoutNegative"] = _WITHOUT_NEGATIVE
        schema["allOf"] = _LABEL_SCHEMA_RULES
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
