"""What passes over topics, described for programs: `python -m worker.interfaces` writes `schemas/`.

JSON Schemas of every message, the Avro and the Protobuf schema of predictions, and an AsyncAPI document of the topics.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from worker import __version__
from worker.errors import ErrorCode, Stage
from worker.kafka.label_status import Answer
from worker.labels.json_schema import json_schemas
from worker.messages.registered import prediction_avro_schema, prediction_json_schema
from worker.messages.registered_protobuf import prediction_proto

FOLDER = Path("schemas")
"""Where everything is kept."""

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Mapping[str, Any] = {"type": "string"}


def interface_files() -> dict[str, str]:
    """The text of every file, by its path below the folder."""
    messages = json_schemas() | {
        "prediction-registered.json": _json(prediction_json_schema()),
        "prediction.avsc": _json(prediction_avro_schema()),
        "prediction.proto": prediction_proto(),
        "prediction-headers.json": _json(_prediction_headers()),
        "dead-letter-headers.json": _json(_dead_letter_headers()),
        "label-pointer.json": _json(_label_pointer()),
        "label-seal.json": _json(_label_seal()),
        "label-status.json": _json({"$schema": _DRAFT, **TypeAdapter(Answer).json_schema()}),
    }
    files = {f"messages/{name}": text for name, text in messages.items()}
    return {**files, "messages/asyncapi.yaml": _asyncapi()}


def main(arguments: Sequence[str]) -> None:
    """Write every file into the folder that is the only argument, or into `FOLDER`."""
    folder = Path(arguments[0]) if arguments else FOLDER
    for name, text in interface_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _headers(title: str, described: Mapping[str, str], always: Sequence[str]) -> dict[str, Any]:
    properties = {name: {**_TEXT, "description": text} for name, text in described.items()}
    return {
        "$schema": _DRAFT,
        "title": title,
        "description": "Headers of the record, in UTF-8; those of the event come along.",
        "type": "object",
        "properties": properties,
        "required": list(always),
    }


_TRACE = {
    "traceparent": "W3C trace context: that of the event, or the worker's span of the record, where it traces.",
    "tracestate": "Goes with it.",
}


def _prediction_headers() -> dict[str, Any]:
    described = {
        "nli-schema": "Label schema as name@version.",
        "nli-model": "Model as name@digest.",
        "content-type": "application/json; absent where the value has a registry's frame.",
        "nli-routed": "The label that a copy is for.",
        "nli-late": "Age in seconds of a record that was late and marked.",
        "nli-original-timestamp": "Milliseconds, where the topic would not take the event's own.",
        **_TRACE,
        "ce_id": "CloudEvents in, CloudEvents out: topic-partition-offset of the event.",
        "ce_type": "CloudEvents: nli.prediction.v1.",
    }
    return _headers("PredictionHeaders", described, ("nli-schema", "nli-model"))


def _dead_letter_headers() -> dict[str, Any]:
    connect = {
        f"__connect.errors.{name}": text
        for name, text in {
            "topic": "Topic of the original.",
            "partition": "Its partition.",
            "offset": "Its offset.",
            "stage": "Step at which it was refused.",
            "class.name": "Module that refused it.",
            "exception.class.name": "worker.errors.MessageError.",
            "exception.message": "Code and reason; never a word of the event.",
        }.items()
    }
    ours = {
        "nli-error-code": "Why; codes are only ever added.",
        "nli-error-stage": "Step at which it was refused.",
        "nli-attempts": "Which attempt failed.",
    }
    cut = {
        "nli-value-bytes": "Size of a value that was too large to come along.",
        "nli-value-sha256": "Its digest.",
    }
    codes, stages = [code.value for code in ErrorCode], [stage.value for stage in Stage]
    always = [*connect, *ours]
    found = _headers("DeadLetterHeaders", {**connect, **ours, **cut, **_TRACE}, always)
    # Lists of words that a later version may add to: what reads them has to expect others.
    found["properties"]["nli-error-code"]["examples"] = codes
    found["properties"]["nli-error-stage"]["examples"] = stages
    return found


def _label_pointer() -> dict[str, Any]:
    return {
        "$schema": _DRAFT,
        "title": "LabelPointer",
        "description": "Under the name of a label schema: which version holds. A null value unbinds it.",
        "type": "object",
        "properties": {
            "version": {"type": "integer", "minimum": 0},
            "digest": {**_TEXT, "description": "Of its document; one that differs is refused."},
        },
        "required": ["version"],
    }


def _label_seal() -> dict[str, Any]:
    return {
        "$schema": _DRAFT,
        "title": "LabelSeal",
        "description": "Under name@seal, written by the tool: what vouches for the documents that were applied.",
        "type": "object",
        "properties": {
            "version": {"type": "integer", "description": "The highest that was applied; no pointer may stand below."},
            "digests": {
                "type": "object",
                "additionalProperties": _TEXT,
                "description": "By version; a document with another one was written anew, and is refused.",
            },
        },
        "required": ["version", "digests"],
    }


_PREDICTIONS: Mapping[str, tuple[str, str | None]] = {
    "prediction": ("prediction.json", "prediction-headers.json"),
    "predictionAvro": ("prediction.avsc", "prediction-headers.json"),
    "predictionProtobuf": ("prediction.proto", "prediction-headers.json"),
    "predictionJsonSchema": ("prediction-registered.json", "prediction-headers.json"),
}
"""By `output_format`: json, avro, protobuf, json_schema."""

_REGISTERED: Mapping[str, str] = {
    "prediction.avsc": "application/vnd.apache.avro+json;version=1.9.0",
    "prediction.proto": "application/vnd.google.protobuf;version=3",
    "prediction-registered.json": "application/schema+json;version=draft-07",
}
"""What is registered under `<output>-value`, with AsyncAPI's name for the language that it is written in."""

_KAFKA: Mapping[str, str] = {"bindingVersion": "0.5.0"}

_CHANNELS: Mapping[str, tuple[str, str, str, Mapping[str, tuple[str, str | None]]]] = {
    "events": (
        "{topic}",
        "receive",
        "Events to classify; whatever they are, the binding says where text and options stand.",
        {"event": ("input.json", None)},
    ),
    "predictions": (
        "{topic}.predictions",
        "send",
        "One prediction per event, under its key, in its partition and order; and routed copies elsewhere.",
        _PREDICTIONS,
    ),
    "routedPredictions": (
        "{route}",
        "send",
        "Copies of the predictions with a certain label, with the header nli-routed.",
        _PREDICTIONS,
    ),
    "deadLetters": (
        "{topic}.dlq",
        "send",
        "Events that cannot be predicted: key, value, headers and timestamp as they came, and why.",
        {"deadLetter": ("", "dead-letter-headers.json")},
    ),
    "labelSchemas": (
        "{schemas_topic}",
        "receive",
        "Compacted, one partition: documents under name@version, under name which version holds, and its seal.",
        {
            "labelSchema": ("label-schema.json", None),
            "labelPointer": ("label-pointer.json", None),
            "labelSeal": ("label-seal.json", None),
        },
    ),
    "labelStatus": (
        "{schemas_status_topic}",
        "send",
        "Compacted: what each worker made of each label schema, under worker/name.",
        {"labelStatus": ("label-status.json", None)},
    ),
}


_PARAMETERS: Mapping[str, str] = {
    "topic": "The input topic; `output` and `dead_letter` of its binding may name others than these.",
    "route": "What an entry of a binding's `routes` names as its `output`.",
    "schemas_topic": "What `schemas.topic` names, where it is set.",
    "schemas_status_topic": "What `schemas.status_topic` names; by default that topic with `.status`.",
}


def _asyncapi() -> str:
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for channel, (address, action, description, carried) in _CHANNELS.items():
        parameter = address[address.index("{") + 1 : address.index("}")]
        channels[channel] = {
            "address": address,
            "description": description,
            "parameters": {parameter: {"description": _PARAMETERS[parameter]}},
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in carried},
            "bindings": {"kafka": dict(_KAFKA)},
        }
        operations[f"{action}{channel[0].upper()}{channel[1:]}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": description,
        }
        messages |= {name: _message(name, *files) for name, files in carried.items()}
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "nli-stream-worker",
            "version": __version__,
            "description": "What a worker reads and writes. `contract` in a prediction rises only with a breaking "
            "change; fields are only ever added.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }
    return "# Written by `python -m worker.interfaces`.\n" + yaml.safe_dump(document, sort_keys=False, width=110)


def _message(name: str, payload: str, headers: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "contentType": "application/json"}
    if headers is not None:
        described["headers"] = {"$ref": f"./{headers}"}
    if (language := _REGISTERED.get(payload)) is not None:
        described |= {
            "summary": "In a registry's frame: a zero byte, the schema's id in four, in Protobuf a further zero.",
            "contentType": "application/octet-stream",
            "bindings": {"kafka": {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent", **_KAFKA}},
            "payload": {"schemaFormat": language, "schema": {"$ref": f"./{payload}"}},
        }
    elif payload:
        described["payload"] = {"$ref": f"./{payload}"}
    else:
        described |= {"contentType": "application/octet-stream", "payload": {"description": "As it came; or null."}}
    return described


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
