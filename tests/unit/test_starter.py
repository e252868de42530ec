"""What `worker init` writes is what the worker reads."""

import json
from pathlib import Path, PurePosixPath

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config import fixed_config, load_config
from worker.documents import parse_yaml, read_document
from worker.errors import ConfigError
from worker.labels.schema import parse_schema
from worker.starter import Answers, schema_name, split_labels, starter

ANSWERS = Answers("localhost:9092,other:9092", "support.tickets", ("billing", "bug", "sehr gut: ja"))


def test_what_is_written_can_be_loaded(tmp_path: Path) -> None:
    made = starter(ANSWERS)
    for path, text in made.files().items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "worker.yaml")
    (binding,) = config.topics
    schema = parse_schema(read_document(tmp_path / made.schema_path), made.schema_path)
    assert ("localhost:9092,other:9092", "support.tickets") == (config.kafka.bootstrap_servers, binding.input)
    assert schema.name == binding.label_schema
    assert ANSWERS.labels == tuple(label.name for label in schema.labels)
    assert config.schemas.directory == (tmp_path / made.schema_path).parent


def test_an_editor_finds_the_json_schema_that_the_label_schema_names() -> None:
    made = starter(ANSWERS)
    first, _ = made.schema.split("\n", 1)
    path = str(PurePosixPath(made.schema_path).parent / first.partition("$schema=")[2])
    jsonschema.Draft202012Validator(json.loads(made.files()[path])).validate(parse_yaml(made.schema))


def test_what_stands_in_comments_can_be_used_as_it_is() -> None:
    made = starter(ANSWERS)
    schema = made.schema.replace("# abstain", "abstain").replace("    # description", "    description")
    assert "other" in str(parse_schema(parse_yaml(schema), "").abstain)


@pytest.mark.parametrize(
    ("text", "pointers"),
    [("subject", ["/subject"]), ("/a/b, c d", ["/a/b", "/c d"]), ("a/b,c~d", ["/a~1b", "/c~0d"]), ("text", None)],
)
def test_the_text_is_read_where_the_answer_says(text: str, pointers: list[str] | None) -> None:
    document = parse_yaml(starter(Answers("h:1", "t", ("x",), text)).config)
    assert isinstance(document, dict)
    (binding,) = fixed_config(document).topics
    assert (pointers, "json") == (None if binding.text is None else list(binding.text), binding.format)


def test_a_dash_makes_the_whole_value_the_text() -> None:
    assert "\n    format: text " in starter(Answers("h:1", "t", ("x",), "-")).config


@given(st.lists(st.text(min_size=1).filter(lambda label: bool(label.strip())), min_size=1, max_size=5, unique=True))
def test_labels_are_written_as_they_are(labels: list[str]) -> None:
    made = starter(Answers("h:1", "t", tuple(labels)))
    assert labels == [label.name for label in parse_schema(parse_yaml(made.schema), "").labels]


@pytest.mark.parametrize("label", ["yes", "null", "1", "a: b", "#", "😀", '"', "\\", "- x", "{}", "ä"])
def test_a_label_that_yaml_would_take_for_something_else_stays_a_label(label: str) -> None:
    made = starter(Answers("h:1", "t", (label,)))
    assert [label] == [each.name for each in parse_schema(parse_yaml(made.schema), "").labels]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (Answers("h:1", "a topic", ("x",)), "--bootstrap-servers, --topic"),
        (Answers("", "t", ("x",)), "--bootstrap-servers, --topic"),
        (Answers("h:1", "t", ("x",), "/~x"), "--text"),
        (Answers("h:1", "t", ()), "--labels"),
        (Answers("h:1", "t", ("x", "x")), "--labels"),
        (Answers("h:1", "t", ("\udcff",)), "--labels"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(answers: Answers, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        starter(answers)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("support.tickets", "support.tickets"),
        ("_x", "x"),
        ("...", "labels"),
        ("inline", "labels"),
        ("t" * 200, "t" * 128),
    ],
)
def test_a_label_schema_is_named_after_its_topic(topic: str, expected: str) -> None:
    assert expected == schema_name(topic)


def test_labels_are_split_at_commas() -> None:
    assert ("a", "b c") == split_labels(" a, b c ,,")
