"""`worker classify`: try a label set on texts, without Kafka."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.errors import ConfigError
from worker.types import JsonValue, Record, Refusal

if TYPE_CHECKING:
    from worker.classifier import Answer
    from worker.labels.schema import LabelSchema
    from worker.types import ModelStamp

_BAR_CELLS = 20


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("classify")(classify)


def classify(
    texts: list[str] = typer.Argument(None, help="Texts; without any and without --file, lines of standard input."),
    labels: str | None = typer.Option(None, help="Labels with commas between them."),
    schema: Path | None = typer.Option(None, help="A label schema, YAML or JSON."),
    file: Path | None = typer.Option(None, help="One input message (JSON) per line; - is standard input."),
    multi_label: bool = typer.Option(False, "--multi-label", help="Judge each label by itself."),
    template: str | None = typer.Option(None, help="A hypothesis with one {} for the label."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object per line."),
    model: str = typer.Option("bundled", help="`bundled`, a folder, or a Hugging Face id@revision."),
    engine: str = typer.Option("auto", help="auto | openvino | pytorch | fake"),
    precision: str = typer.Option("auto", help="auto | float32 | bfloat16 | float16"),
) -> None:
    """Classify texts under a label set: the same code path as the worker's, without Kafka.

    Exits 1 at the end if a message could not be classified; its code is printed in its place.
    """
    from worker.classifier import open_classifier
    from worker.engines.load import EngineChoice
    from worker.observability.logging import configure_logging
    from worker.settings import Limits

    configure_logging("warning")
    label_schema = _label_schema(labels, schema, template, multi_label=multi_label)
    messages = _messages(texts, file)
    failed = 0
    with open_classifier(EngineChoice(model, engine, precision), label_schema, Limits()) as (classifier, stamp):
        for answer in classifier.answers(messages):
            failed += isinstance(answer.outcome, Refusal)
            print(json.dumps(_as_object(answer, stamp), ensure_ascii=False) if as_json else _for_people(answer))
    if failed:
        raise typer.Exit(1)


def _label_schema(labels: str | None, schema: Path | None, template: str | None, *, multi_label: bool) -> "LabelSchema":
    from worker.documents import DocumentError, read_document
    from worker.labels.schema import parse_schema

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
    if isinstance(document, dict):
        if multi_label:
            document["multi_label"] = True
        if template is not None:
            document["hypothesis_templates"] = [template]
    return parse_schema(document, origin)


def _messages(texts: list[str] | None, file: Path | None) -> Iterator[Record]:
    if texts and file is not None:
        raise ConfigError("expected either texts or --file")
    if texts:
        return _records(_as_message(text) for text in texts)
    if file is None:
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


def _as_object(answer: "Answer", stamp: "ModelStamp") -> dict[str, JsonValue]:
    from worker.clock import SystemClock
    from worker.messages.codec import prediction_object, utc_timestamp
    from worker.messages.inbound import default_id
    from worker.messages.outbound import Stamps

    if isinstance(answer.outcome, Refusal) or answer.request is None or answer.schema is None:
        return {"id": default_id(answer.record), "error": _refusal(answer)}
    schema = answer.schema
    now = utc_timestamp(int(SystemClock().wall() * 1000)) or ""
    stamps = Stamps(schema.name, schema.version, schema.digest, stamp, now)
    return prediction_object(answer.outcome, answer.request, stamps)


def _refusal(answer: "Answer") -> dict[str, JsonValue]:
    refusal = answer.outcome
    if not isinstance(refusal, Refusal):
        raise RuntimeError("This is a bug. An answer is neither a prediction nor a refusal.")  # noqa: TRY004
    return {"code": refusal.code.value, "stage": refusal.stage.value, "reason": refusal.reason}


def _for_people(answer: "Answer") -> str:
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
