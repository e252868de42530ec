"""What `worker schemas` asks and prints."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import typer
import yaml

from worker.cli.options import EXIT_FAILED
from worker.kafka.label_writer import Response
from worker.labels.diff import Difference
from worker.messages.codec import utc_timestamp
from worker.schema_desk import HistoryEntry, Proposal, SchemaDesk
from worker.types import JsonValue


class Sink:
    """Lines for people, or one JSON object at the end."""

    def __init__(self, as_json: bool) -> None:
        """Lines are printed at once, what `as_json` is to hold is kept until `end`."""
        self._as_json = as_json
        self._object: dict[str, object] = {}

    def line(self, text: str) -> None:
        """Print a line for people."""
        if not self._as_json:
            print(text, flush=True)

    def put(self, key: str, value: object) -> None:
        """Set a key of the object."""
        self._object[key] = value

    def item(self, key: str, value: object) -> None:
        """Add to a list of the object."""
        listed = self._object.setdefault(key, [])
        if isinstance(listed, list):
            listed.append(value)

    def end(self) -> None:
        """Print the object, where one is wanted."""
        if self._as_json:
            print(json.dumps(self._object, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Ask:
    """How a change is to be carried out."""

    yes: bool
    as_json: bool
    wait_seconds: float | None
    """How long to wait for the workers; None: not at all."""


def carry_out(desk: SchemaDesk, proposal: Proposal, ask: Ask) -> None:
    """Show, ask, write, and wait for the workers. Blocks.

    Raises:
        WorkerError: it could not be written.
        typer.Exit: 1, if the person said no, or a live worker has not accepted.
    """
    sink, change = Sink(ask.as_json), proposal.change
    version = None if change.new is None else change.new.version
    sink.put("name", change.name)
    sink.put("before", proposal.before)
    sink.put("version", version)
    sink.line(f"{change.name}: {_version(proposal.before)} -> {_version(version)}")
    print_differences(proposal.differences, sink)
    sink.put("notes", list(proposal.notes))
    for note in proposal.notes:
        sink.line(f"  note: {note}")
    if proposal.is_needed:
        if not ask.yes and not typer.confirm("Write this?", err=True):
            raise typer.Exit(EXIT_FAILED)
        desk.topic.write(change)
        sink.line(f"written to {desk.topic.topic}")
    else:
        sink.line(f"{desk.topic.topic} says so already")
    sink.put("written", proposal.is_needed)
    response = None
    if version is not None and ask.wait_seconds is not None:
        response = desk.topic.wait_for(change.name, version, ask.wait_seconds, wait=threading.Event().wait)
        _print_response(response, sink)
    sink.end()
    if response is not None and not response.is_good:
        raise typer.Exit(EXIT_FAILED)


def print_differences(found: Sequence[Difference], sink: Sink) -> None:
    """One line per difference."""
    sink.put("differences", [asdict(each) for each in found])
    for each in found:
        sink.line(f"  {each}")
    if not found:
        sink.line("  nothing changes")


def print_list(desk: SchemaDesk, sink: Sink) -> None:
    """Every label schema, and what is refused.

    Raises:
        WorkerError: a source cannot be read.
    """
    labels, answers = desk.registry(), desk.answers()
    sink.put("schemas", [])
    for name in sorted({*labels.names(), *(answer.name for answer in answers)}):
        schema, verdict = labels.current(name), labels.verdict(name)
        said = [answer for answer in answers if answer.name == name]
        source = labels.source(name) if schema is not None else None
        item: dict[str, object] = {"name": name, "source": source, "pointer": verdict.pointed}
        # The workers know the model, and with it what they refuse; this command has none.
        held = desk.held(name) if source == "topic" else None
        version = held if held is not None or schema is None else schema.version
        item["version"] = version
        item["versions"] = list(labels.versions(name))
        item["workers"] = [asdict(answer) for answer in said]
        sink.item("schemas", item)
        sink.line(f"{name}  {_version(version)}  {source or 'not bound'}")
        for answer in said:
            state = answer.state if answer.reason is None else f"{answer.state}: {answer.reason}"
            sink.line(f"  {answer.worker}  holds {_version(answer.in_force)}, {_version(answer.version)} {state}")
    sink.put("refusals", [asdict(refusal) for refusal in labels.refusals()])
    for refusal in labels.refusals():
        sink.line(f"refused  {refusal}")
    sink.end()


def print_history(entries: Sequence[HistoryEntry], sink: Sink) -> None:
    """One line per version."""
    for entry in entries:
        written = utc_timestamp(entry.written_ms)
        sink.item("versions", {**asdict(entry), "written": written})
        notes = ["in force"] if entry.is_in_force else []
        notes += ["pointed to"] if entry.is_pointed and not entry.is_in_force else []
        notes += [f"content of {entry.rollback_of}"] if entry.rollback_of is not None else []
        notes += [f"refused: {entry.reason}"] if entry.reason is not None else []
        sink.line(f"{entry.version:>5}  {written}  {(entry.digest or '?')[:19]}  {', '.join(notes)}".rstrip())
    sink.end()


def as_yaml(document: Mapping[str, JsonValue]) -> str:
    """`document` as a person would write it."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).rstrip()


def _print_response(response: Response, sink: Sink) -> None:
    sink.put("accepted", list(response.accepted))
    sink.put("refused", dict(response.refused))
    sink.put("silent", list(response.silent))
    for worker in response.accepted:
        sink.line(f"accepted  {worker}")
    for worker, reason in response.refused.items():
        sink.line(f"refused   {worker}: {reason}")
    for worker in response.silent:
        sink.line(f"silent    {worker}")
    if not (response.accepted or response.refused or response.silent):
        sink.line("no worker is live")


def _version(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
