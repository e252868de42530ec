"""What `worker schemas lint` and `dry-run` read and print."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.cli.schemas_text import Sink
from worker.cli.texts import records_from
from worker.labels.schema import LabelSchema, parse_schema
from worker.lint import Advice
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.schema_desk import SchemaDesk, read_file
from worker.trials import Comparison, Decode, Side, sample_of
from worker.types import Record, Request

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposed schema and what to try it on."""

    schema: LabelSchema
    records: list[Record]
    decode: Decode
    missing: tuple[str, ...] = ()
    """Topics of the sample that are not there."""


def trial_of(desk: SchemaDesk, file: Path, sample: Path | None, last: int) -> Trial:
    """The schema in `file`, with the sample in a file or the last records of its topics.

    Raises:
        ConfigError: a file cannot be read, or no binding uses the schema.
        SchemaError: the file holds no label schema.
        RetryableError: a topic cannot be read.
    """
    schema, limits = parse_schema(read_file(file), str(file), desk.config.limits), desk.config.limits
    if sample is not None:
        return Trial(schema, list(records_from(None, sample)), lambda record: decode(record, InputFields(), limits))
    if last == 0:
        return Trial(schema, [], _nothing)
    found = sample_of(desk.config, schema.name, last)
    return Trial(schema, found.records, found.decode, found.missing)


def print_missing(trial: Trial, sink: Sink) -> None:
    """The topics that the sample does without."""
    sink.put("missing_topics", list(trial.missing))
    for topic in trial.missing:
        sink.line(f"left out  {topic}: there is no such topic yet")


def print_advice(advice: Iterable[Advice], sink: Sink) -> None:
    """Advice as it is found."""
    sink.put("advice", [])
    is_fine = True
    for each in advice:
        is_fine = False
        sink.item("advice", asdict(each))
        score = "" if each.score is None else f" ({each.score:.2f})"
        sink.line(f"{each.code:<9}{each.message}{score}\n{'':<9}{each.suggestion}")
    if is_fine:
        sink.line("nothing to say against it")
    sink.end()


def print_comparison(found: Comparison, sink: Sink, examples: int, *, show_text: bool) -> None:
    """What would change, with examples by id."""
    sink.put("messages", found.messages)
    sink.put("before", None if found.before is None else asdict(found.before))
    sink.put("after", asdict(found.after))
    sink.put("flips", len(found.flips))
    sink.put("moves", [{"before": b, "after": a, "messages": n} for b, a, n in found.moves])
    sink.line(f"{found.messages} messages")
    for side in (found.before, found.after):
        if side is not None:
            sink.line(_of_side(side))
    if found.before is None:
        sink.line("no version holds yet: there is nothing to compare with")
    else:
        share = len(found.flips) / found.messages if found.messages else 0.0
        sink.line(f"{len(found.flips)} decisions flip ({share:.1%})")
    for before, after, times in found.moves:
        sink.line(f"  {times:>5}  {before} -> {after}")
    sink.put("examples", [])
    for flip in found.flips[:examples]:
        sink.item("examples", {k: v for k, v in asdict(flip).items() if show_text or k != "text"})
        sink.line(f"  {flip.id}: {flip.before} -> {flip.after}")
        if show_text:
            sink.line(f"         {' '.join(flip.text.split())[:_SHOWN_CHARACTERS]}")
    sink.end()


def _of_side(side: Side) -> str:
    refused = sum(side.refused.values())
    share = side.abstained / side.predicted if side.predicted else 0.0
    tail = f", {refused} refused" if refused else ""
    return f"  {side.reference}: {share:.1%} abstain, {side.pairs_per_message:.1f} pairs per message{tail}"


def _nothing(_: Record) -> Request:
    raise RuntimeError("This is a bug. A sample without records was decoded.")
