"""The JSON Schemas of what people and programs write and read, generated: `python -m worker.labels.json_schema`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from worker.labels.schema import LabelSchema
from worker.messages.inbound import InputMessage
from worker.messages.outbound import PredictionMessage

FOLDER = Path("schemas/messages")
"""Where they are kept. Not beside label schemas, which a worker may read as a folder."""

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
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
