"""The first configuration and label schema, written from a few answers; checked as the worker will read them. Pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from worker.config import fixed_config
from worker.documents import DocumentError, parse_yaml
from worker.errors import ConfigError, SchemaError
from worker.labels.json_schema import json_schemas
from worker.labels.schema import parse_schema
from worker.messages.reference import INLINE

_HEAD = """\
# What this worker reads, what it writes, and which labels it looks for.
# `worker check` says what would run; every key stands in docs/configuration.md.

"""

_KAFKA = """\
kafka:
  bootstrap_servers: {servers}    # host:port, several with commas
  group_id: {group}    # workers that share it share the work
  create_topics: true    # create missing output and dead letter topics

  # For a cluster with SASL and TLS; the password comes from WORKER_KAFKA__SASL_PASSWORD or a file, never from here.
  # security_protocol: sasl_ssl
  # sasl_mechanism: SCRAM-SHA-512
  # sasl_username: worker
  # sasl_password_file: /run/secrets/kafka-password
"""

_CONFIG = """\

# delivery: exactly_once    # or at_least_once: lower latency, and events may be published twice after a crash
# model: bundled    # small, English; or a folder, or a Hugging Face id@revision

schemas:
  directory: schemas    # beside this file, watched: edit a label schema, raise its version, save

topics:
  - input: {topic}
    # output: "{{topic}}.predictions"
    # dead_letter: "{{topic}}.dlq"    # what cannot be predicted, with the reason; see `worker dead-letters`
    label_schema: {schema}
{text}"""

_MESSAGE = """\
    # Without the next keys an event is {"text": "…"}, with "id" and its own "labels" if it likes.
    # text: [/subject, /body]    # JSON Pointers, joined by a newline
    # id: /ticket_id
    # format: text    # the whole value is the text
"""

_FIELDS = """\
    text: [{pointers}]    # JSON Pointers, joined by a newline; those that an event has not are skipped
    # id: /ticket_id    # where an event has one; else its topic/partition/offset
"""

_PLAIN = """\
    format: text    # the whole value is the text
"""

_SCHEMA = """\
# yaml-language-server: $schema=messages/label-schema.json
# A label set. Change it while the worker runs: edit, raise the version, save.
# Try it on texts first: worker classify --schema {path} "some text"

name: {name}
version: 1
# multi_label: true    # each label is decided by itself: none, one or several hold
hypothesis_templates: ["This example is about {{}}."]    # a sentence that is true of a text that has the label

labels:
{labels}
# abstain: {{below: 0.4, label: other}}    # select nothing where even the best score is lower
"""

EDITOR_FILE = "label-schema.json"
EDITOR_PATH = f"schemas/messages/{EDITOR_FILE}"
"""Below the folder of label schemas, where no worker takes it for one."""
_LABEL_HINT = "    # description: fills the template instead of the name, where the name alone says too little\n"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 128
_BARE = re.compile(r"/?[A-Za-z][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True, slots=True)
class Answers:
    """What a first configuration depends on."""

    bootstrap_servers: str
    topic: str
    labels: tuple[str, ...]
    text: str = "text"
    """Fields of the event with commas, each a name or a JSON Pointer; `-`: the whole value."""
    kafka: str | None = None
    """YAML with a `kafka` section that is taken over as it is; there the servers and the group are not asked for."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Two files: path below the chosen folder, and text. A third one has editors complete and check label schemas."""

    config: str
    schema_path: str
    schema: str

    def files(self) -> dict[str, str]:
        """All three, by path."""
        return {"worker.yaml": self.config, self.schema_path: self.schema, EDITOR_PATH: json_schemas()[EDITOR_FILE]}


def split_labels(text: str) -> tuple[str, ...]:
    """The labels in a line with commas between them, without the white space around them."""
    return tuple(label for part in text.split(",") if (label := part.strip()))


def starter(answers: Answers) -> Starter:
    """What to write for `answers`.

    Raises:
        ConfigError: one of them cannot be used; names it.
    """
    name = schema_name(answers.topic)
    kafka = answers.kafka or _KAFKA.format(
        servers=_quoted(answers.bootstrap_servers), group=_quoted(group_of(answers.topic))
    )
    topics = _CONFIG.format(topic=_quoted(answers.topic), schema=_quoted(name), text=_text_lines(answers.text))
    config = f"{_HEAD}{kafka.rstrip()}\n{topics}"
    path = f"schemas/{name}.yaml"
    schema = _SCHEMA.format(name=_quoted(name), path=path, labels=_label_lines(answers.labels))
    _check(answers, config, schema)
    return Starter(config, path, schema)


def group_of(topic: str) -> str:
    """What the group of the workers that read `topic` is called."""
    return f"{topic}-labels"


def schema_name(topic: str) -> str:
    """What the label schema for `topic` is called: the topic's name as far as a schema's may have its characters."""
    name = _NOT_IN_A_NAME.sub("-", topic).lstrip("._-")[:_LONGEST_NAME]
    return "labels" if not name or name == INLINE else name


def _text_lines(text: str) -> str:
    """Where the text is: the documented message for its own field `text`."""
    fields = split_labels(text)
    if text.strip() == "-":
        return _PLAIN
    if fields in {("text",), ("/text",)}:
        return _MESSAGE
    return _FIELDS.format(pointers=", ".join(_quoted(_pointer(field)) for field in fields))


def _pointer(field: str) -> str:
    """A field's name as a JSON Pointer (RFC 6901); a pointer as it is."""
    return field if field.startswith("/") else "/" + field.replace("~", "~0").replace("/", "~1")


def _label_lines(labels: Sequence[str]) -> str:
    lines = [f"  - name: {_quoted(label)}\n" for label in labels]
    return "".join(lines[:1]) + _LABEL_HINT + "".join(lines[1:])


def _check(answers: Answers, config: str, schema: str) -> None:
    """Read both as the worker will.

    Raises:
        ConfigError: the worker would refuse one of them.
    """
    try:
        document = parse_yaml(config)
        fixed_config(document if isinstance(document, dict) else {})
    except (ConfigError, DocumentError) as error:
        options = f"{'--kafka' if answers.kafka else '--bootstrap-servers'}, --topic, --text"
        raise ConfigError(f"{options}: cannot be used: {error}") from None
    try:
        labels = parse_schema(parse_yaml(schema), "--labels").labels
    except (SchemaError, DocumentError) as error:
        raise ConfigError(f"--labels: cannot be used: {error}") from None
    if tuple(label.name for label in labels) != answers.labels:
        raise ConfigError("This is a bug. The label schema has other labels than were asked for.")


def _quoted(text: str) -> str:
    """`text` as a YAML scalar: left bare where that is safe to read, else in double quotes."""
    if _BARE.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return "".join(_printable(character) for character in json.dumps(text, ensure_ascii=False))


def _printable(character: str) -> str:
    """`character`, as an escape where YAML would refuse it or take it for the end of a line."""
    return character if character.isprintable() else f"\\U{ord(character):08x}"
