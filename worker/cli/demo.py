"""`worker demo`: the whole job on this machine, to be watched."""

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import typer

from worker.cli.options import EXIT_FAILED

if TYPE_CHECKING:
    from worker.demo.play import Audience
    from worker.demo.tally import Outcome, Scene
    from worker.types import Record


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo")(demo)


def demo(
    messages: int = typer.Option(300, min=1, help="How many events to send."),
    broker: Literal["kafka", "mock"] = typer.Option(
        "kafka", help="`kafka`: a real one, exactly once. `mock`: librdkafka's, at least once, nothing to download."
    ),
    engine: str = typer.Option("auto", help="What runs the bundled model; `fake` gives nonsense at once."),
    as_json: bool = typer.Option(False, "--json", help="One summary object, and no table."),
) -> None:
    """Start Kafka, send events, classify them with the bundled model, change a label set while it runs."""
    from worker.cli.demo_screen import SUMMARY_COLUMNS, summary_lines
    from worker.demo.play import DemoSettings, run_demo
    from worker.observability.logging import configure_logging

    for ending in (signal.SIGTERM, signal.SIGINT):  # a shell starts what it puts in the background deaf to SIGINT
        signal.signal(ending, signal.default_int_handler)
    with _audience(as_json=as_json) as audience:
        configure_logging("error")
        summary = run_demo(DemoSettings(messages, broker, engine), audience)
    if as_json:
        print(json.dumps(summary.as_json()))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else SUMMARY_COLUMNS
        print("\n".join(summary_lines(summary, min(columns, SUMMARY_COLUMNS))))
    if not summary.is_complete:
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _audience(*, as_json: bool) -> "Iterator[Audience]":
    if as_json or not sys.stdout.isatty():
        yield Quiet()
        return
    from worker.cli.demo_screen import Screen

    with Screen() as screen:
        yield screen


class Quiet:
    """Nobody watches: only what is other than was asked for is said, on standard error."""

    def say(self, step: str) -> None:
        """Nothing."""

    def warn(self, line: str) -> None:
        """One line."""
        print(f"demo: {line}", file=sys.stderr, flush=True)

    def show(self, scene: "Scene") -> None:
        """Nothing."""

    def note(self, record: "Record", outcome: "Outcome") -> None:
        """Nothing."""
