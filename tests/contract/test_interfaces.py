"""What is published about our topics is what the code does, and never takes back what a release has promised."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.avro_compatibility import avro_breaks
from tests.support.compatibility import Direction, breaks
from worker.errors import ErrorCode
from worker.interfaces import interface_files, main

SCHEMAS = Path(__file__).parents[2] / "schemas"
RELEASED = SCHEMAS / "released"
"""Of the last release; written by `python -m worker.interfaces schemas/released` when one is made."""

READ = {"input.json", "label-schema.json", "label-pointer.json", "label-seal.json"}
"""Messages that others write; all the rest we write."""

SAID_LATER = {
    "label-schema.json": [
        "$.abstain.label: pattern has changed",
        "$.hypothesis_templates[]: pattern has changed",
        "$.instruction: pattern has changed",
        *(f"$.labels[].{key}: pattern has changed" for key in ("description", "hypothesis", "name", "negative")),
    ]
}
"""What the worker of the last release refused too, and its file did not say: an editor says it now."""


def direction(name: str) -> Direction:
    return "read" if name in READ else "written"


def released() -> list[str]:
    return sorted(file.name for file in (RELEASED / "messages").glob("*.json"))


@pytest.mark.parametrize("name", sorted(interface_files()))
def test_the_published_file_is_the_generated_one(name: str) -> None:
    """`python -m worker.interfaces` writes them."""
    assert interface_files()[name] == (SCHEMAS / name).read_text(encoding="utf-8")


def test_they_are_written_into_the_folder_that_is_named(tmp_path: Path) -> None:
    main([str(tmp_path)])
    assert sorted(interface_files()) == sorted(
        str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()
    )


@pytest.mark.parametrize("name", sorted(name for name in interface_files() if name.endswith(".json")))
def test_every_json_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(interface_files()[name]))


def test_the_asyncapi_document_names_only_what_is_there() -> None:
    document = yaml.safe_load(interface_files()["messages/asyncapi.yaml"])
    assert "3.0.0" == document["asyncapi"]
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            assert message["$ref"].rsplit("/", 1)[1] in document["components"]["messages"]
        for name in channel["parameters"]:
            assert f"{{{name}}}" in channel["address"]
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].rsplit("/", 1)[1] in document["channels"]
    files = {
        Path(schema["$ref"]).name
        for message in document["components"]["messages"].values()
        for part in (message.get("payload", {}), message.get("headers", {}))
        for schema in (part, part.get("schema", {}))
        if "$ref" in schema
    }
    described = {name.removeprefix("messages/") for name in interface_files()} - {"asyncapi.yaml"}
    assert described == files, "each file is of some message, and each that is named is there"


@pytest.mark.parametrize("name", released())
def test_what_the_last_release_promised_still_holds(name: str) -> None:
    before = json.loads((RELEASED / "messages" / name).read_text(encoding="utf-8"))
    after = json.loads(interface_files()[f"messages/{name}"])
    assert SAID_LATER.get(name, []) == breaks(before, after, direction(name))


def test_the_avro_schema_of_the_last_release_and_this_one_read_each_other() -> None:
    before = json.loads((RELEASED / "messages" / "prediction.avsc").read_text(encoding="utf-8"))
    assert [] == avro_breaks(before, json.loads(interface_files()["messages/prediction.avsc"]))


PROTO_FIELD = re.compile(r"((?:optional |repeated )?[\w.]+) (\w+) = (\d+);")


def proto_fields(text: str) -> set[tuple[str, str, str, str]]:
    """Of each field the message it is in, by its whole name, then its type, its name and its number."""
    found: set[tuple[str, str, str, str]] = set()
    inside: list[str] = []
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("message "):
            inside.append(line.split()[1])
        elif line == "}":
            inside.pop()
        elif (field := PROTO_FIELD.fullmatch(line)) is not None:
            found.add((".".join(inside), field[1], field[2], field[3]))
    return found


def test_every_field_of_the_last_release_s_protobuf_schema_has_kept_its_type_and_number() -> None:
    before = (RELEASED / "messages" / "prediction.proto").read_text(encoding="utf-8")
    after = interface_files()["messages/prediction.proto"]
    assert ("Prediction.Score", "double", "score", "2") in proto_fields(before)
    statements = [line for line in before.splitlines() if line.endswith(";") and not line.strip().startswith("//")]
    assert len(statements) - len(["syntax", "package"]) == len(proto_fields(before))
    assert set() == proto_fields(before) - proto_fields(after)
    assert before.splitlines()[:2] == after.splitlines()[:2]


@pytest.mark.parametrize(
    ("line", "changed_line"),
    [
        ("  string id = 2;", ""),
        ("  string id = 2;", "  string name = 2;"),
        ("  string id = 2;", "  int64 id = 2;"),
        ("  string id = 2;", "  string id = 17;"),
        ("  optional string label = 4;", "  string label = 4;"),
        ("  message Score {", "  message Points {"),
    ],
)
def test_a_field_of_protobuf_that_is_taken_away_or_changed_is_found(line: str, changed_line: str) -> None:
    text = interface_files()["messages/prediction.proto"]
    assert line in text
    assert proto_fields(text) - proto_fields(text.replace(f"{line}\n", f"{changed_line}\n"))


def topics(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Address, what the worker does with it, and what is on it: once per message."""
    actions = {each["channel"]["$ref"].rsplit("/", 1)[1]: each["action"] for each in document["operations"].values()}
    return {
        (channel["address"], actions[name], message)
        for name, channel in document["channels"].items()
        for message in channel["messages"]
    }


def test_no_topic_or_message_of_the_last_release_was_taken_back() -> None:
    before = yaml.safe_load((RELEASED / "messages" / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert topics(before)
    assert topics(before) <= topics(yaml.safe_load(interface_files()["messages/asyncapi.yaml"]))


def test_no_file_of_the_last_release_was_taken_back() -> None:
    before = {str(file.relative_to(RELEASED)) for file in RELEASED.rglob("*") if file.is_file()}
    assert {f"messages/prediction.{kind}" for kind in ("avsc", "json", "proto")} | {"messages/asyncapi.yaml"} <= before
    assert before <= interface_files().keys()


def test_no_code_of_a_dead_letter_was_taken_back() -> None:
    before = json.loads((RELEASED / "messages" / "dead-letter-headers.json").read_text(encoding="utf-8"))
    assert set(before["properties"]["nli-error-code"]["examples"]) <= {code.value for code in ErrorCode}


def changed(name: str, *path: str | int, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401
    """A released schema, and the same with keys at `path` changed; None takes one away."""
    before = json.loads(interface_files()[f"messages/{name}"])
    after = copy.deepcopy(before)
    place = after
    for part in path:
        place = place[part]
    for key, value in changes.items():
        if value is None:
            del place[key]
        else:
            place[key] = value
    return before, after


@pytest.mark.parametrize(
    ("name", "path", "changes", "expected"),
    [
        ("prediction.json", ["properties"], {"label": None}, ["$.label: is gone"]),
        ("prediction.json", ["properties", "id"], {"type": "integer"}, ["$.id: may now be integer"]),
        ("prediction.json", [], {"required": ["id"]}, None),
        ("prediction.json", ["properties", "mode"], {"enum": ["single", "multi", "both"]}, None),
        ("prediction.json", ["$defs", "ScoreField", "properties", "score"], {"maximum": 2.0}, None),
        ("prediction.json", ["$defs", "ScoreField", "properties"], {"path": None}, None),
        ("input.json", [], {"required": ["text", "id"]}, ["$.id: is now needed"]),
        ("input.json", [], {"additionalProperties": False}, ["$: other keys are no longer taken"]),
        ("input.json", ["properties", "id"], {"anyOf": [{"type": "string"}]}, None),
        ("input.json", ["$defs", "InlineLabel", "properties", "name"], {"maxLength": 10}, None),
        ("label-schema.json", ["properties"], {"top_k": None}, ["$.top_k: is gone"]),
    ],
)
def test_what_is_taken_away_or_narrowed_is_found(
    name: str, path: list[str], changes: dict[str, Any], expected: list[str] | None
) -> None:
    found = breaks(*changed(name, *path, **changes), direction(name))
    assert found
    assert expected is None or expected == found


@pytest.mark.parametrize(
    ("name", "path", "changes"),
    [
        ("prediction.json", ["properties"], {"added": {"type": "string"}}),
        ("prediction.json", ["properties", "id"], {"minLength": 1}),
        ("input.json", ["properties"], {"added": {"anyOf": [{"type": "string"}, {"type": "null"}]}}),
        ("input.json", ["properties", "text"], {"type": ["string", "number"]}),
        ("input.json", [], {"required": None}),
    ],
)
def test_what_is_added_or_widened_may_follow(name: str, path: list[str], changes: dict[str, Any]) -> None:
    assert [] == breaks(*changed(name, *path, **changes), direction(name))


FIELD = {"name": "added", "type": ["null", "string"], "default": None}


def avro_changed(name: str, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Avro schema of a prediction, and the same with one field changed."""
    before = json.loads(interface_files()["messages/prediction.avsc"])
    fields = [field | changes if field["name"] == name else field for field in before["fields"]]
    return before, {**before, "fields": fields}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("id", {"type": "long"}, ["new readers: $.id: string is not taken", "old readers: $.id: long is not taken"]),
        ("id", {"type": ["null", "string"]}, ["old readers: $.id: null is not taken"]),
        ("label", {"type": "string"}, ["new readers: $.label: null is not taken"]),
        ("contract", {"type": "double"}, ["old readers: $.contract: double is not taken"]),
        ("selected", {"type": {"type": "array", "items": "long"}}, None),
        ("selected", {"type": {"type": "map", "values": "string"}}, None),
        (
            "mode",
            {"name": "way"},
            [
                "$.mode: is gone",
                "new readers: $.way: was not written, and has no default",
                "old readers: $.mode: was not written, and has no default",
            ],
        ),
        ("event", {"name": "input"}, ["$.event: is gone"]),
        ("scored_at", {"type": {"type": "enum", "name": "At", "symbols": ["now"]}}, None),
    ],
)
def test_what_one_avro_schema_writes_and_the_other_does_not_read_is_found(
    name: str, changes: dict[str, Any], expected: list[str] | None
) -> None:
    found = avro_breaks(*avro_changed(name, changes))
    assert found
    assert expected is None or expected == found


def test_a_field_of_avro_may_be_added_with_a_default_only() -> None:
    before = json.loads(interface_files()["messages/prediction.avsc"])
    assert [] == avro_breaks(before, {**before, "fields": [*before["fields"], FIELD]})
    needed = {key: value for key, value in FIELD.items() if key != "default"}
    assert ["new readers: $.added: was not written, and has no default"] == avro_breaks(
        before, {**before, "fields": [*before["fields"], needed]}
    )


def test_what_is_inside_an_avro_record_counts_too() -> None:
    scores = {"name": "ScoreField", "type": "record", "fields": [{"name": "label", "type": "long"}]}
    before, after = avro_changed("scores", {"type": {"type": "array", "items": scores}})
    assert [
        "$.scores[].path: is gone",
        "$.scores[].score: is gone",
        "new readers: $.scores[].label: string is not taken",
        "old readers: $.scores[].label: long is not taken",
        "old readers: $.scores[].score: was not written, and has no default",
    ] == avro_breaks(before, after)
