"""What `worker classify` reads and prints."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.classifier import Answer
from worker.clock import SystemClock
from worker.documents import DocumentError, read_document
from worker.errors import ConfigError
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import prediction_object, utc_timestamp
from worker.messages.inbound import default_id
from worker.messages.outbound import Stamps
from worker.types import JsonValue, ModelStamp, Record, Refusal

_BAR_CELLS = 20


def label_schema_from(
    labels: str | None, schema: Path | None, template: str | None, *, multi_label: bool
) -> LabelSchema:
    """The label schema that the options describe.

    Raises:
        ConfigError: the options do not go together, or the file cannot be read.
        SchemaError: the labels cannot be used.
    """
    if (labels is None) == (schema is None):
        raise ConfigError("expected either --labels a,b or --schema FILE")
    if schema is not None:
        try:
            document = read_document(schema)
        except DocumentError as error:
            raise ConfigError(f"{schema}: {error}") from None
        origin = str(schema)
    else:
        names: list[JsonValue] = [{"name": name.strip()} for name in (labels or "").split(",")]
        document, origin = {"name": "command-line", "version": 0, "labels": names}, "--labels"
    parsed = parse_schema(document, origin)
    # One after the other, so that what is refused is told by the option that brought it.
    if isinstance(document, dict) and multi_label:
        document["multi_label"] = True
        parsed = parse_schema(document, f"--multi-label, with {origin}")
    if isinstance(document, dict) and template is not None:
        document["hypothesis_templates"] = [template]
        parsed = parse_schema(document, "--template")
    return parsed


def records_from(texts: list[str] | None, file: Path | None) -> Iterator[Record]:
    """The messages to classify, read as they are asked for.

    Raises:
        ConfigError: the options do not go together, or there is no such file.
    """
    if texts and file is not None:
        raise ConfigError("expected either texts or --file")
    if texts:
        return _records(_as_message(text) for text in texts)
    if file is None:
        if sys.stdin.isatty():
            sys.stderr.write("one text per line, Ctrl-D ends\n")
        return _records(_as_message(line.decode(errors="replace").rstrip("\r\n")) for line in sys.stdin.buffer)
    if str(file) == "-":
        return _records(line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    if not file.is_file():
        raise ConfigError(f"{file}: expected a file with one JSON message per line")
    return _records(_lines(file))


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        for line in stream:
            yield line.rstrip(b"\r\n")


def _as_message(text: str) -> bytes:
    return json.dumps({"text": text}).encode()


def _records(values: Iterable[bytes]) -> Iterator[Record]:
    for number, value in enumerate(values):
        yield Record(topic="classify", partition=0, offset=number, epoch=0, key=None, value=value)


def as_object(answer: Answer, stamp: ModelStamp) -> str:
    """An answer as one line of JSON: the prediction without `source` and `event`, or the error."""
    if isinstance(answer.outcome, Refusal) or answer.request is None or answer.schema is None:
        return json.dumps({"id": default_id(answer.record), "error": _refusal(answer)})
    schema = answer.schema
    now = utc_timestamp(int(SystemClock().wall() * 1000)) or ""
    stamps = Stamps(schema.name, schema.version, schema.digest, stamp, now)
    return json.dumps(prediction_object(answer.outcome, answer.request, stamps), ensure_ascii=False)


def _refusal(answer: Answer) -> dict[str, JsonValue]:
    refusal = answer.outcome
    if not isinstance(refusal, Refusal):
        raise RuntimeError("This is a bug. An answer is neither a prediction nor a refusal.")  # noqa: TRY004
    return {"code": refusal.code.value, "stage": refusal.stage.value, "reason": refusal.reason}


def for_people(answer: Answer) -> str:
    """An answer to look at: the text, and a bar per label."""
    outcome = answer.outcome
    if isinstance(outcome, Refusal):
        return f"line {answer.record.offset + 1}: {outcome.code.value}: {outcome.reason}\n"
    text = answer.request.text if answer.request is not None else ""
    lines = [text]
    for each in outcome.scores:
        mark = "*" if each.label in outcome.selected else " "
        lines.append(f"{mark} {each.score:5.3f} {'█' * round(each.score * _BAR_CELLS):{_BAR_CELLS}} {each.label}")
    if not outcome.selected:
        lines.append(f"  no label selected{f', so: {outcome.label}' if outcome.label else ''}")
    if outcome.text.tokens_dropped:
        lines.append(f"  {outcome.text.tokens_dropped} tokens of the text were cut")
    return "\n".join(lines) + "\n"
