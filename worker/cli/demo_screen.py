"""What `worker demo` shows: a live table while it runs, texts included, and a summary at the end."""

import sys
import textwrap
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from worker.demo.tally import Outcome, Scene, Summary
from worker.types import Record

_ROWS = 14
_FRAME_LINES = 8
"""Lines of the screen that are not rows of the table."""
_REFRESHES_PER_SECOND = 8
_WIDE_COLUMNS = 100
_DELIVERIES = {"exactly_once": "exactly once", "at_least_once": "at least once"}
_BROKERS = {
    "kafka": "on a real Apache Kafka",
    "mock": "on librdkafka's mock cluster, which has no transactions",
}
SUMMARY_COLUMNS = 100
_INLINE = "inline"


class Screen:
    """The live table. A context manager: the last picture stays when it is left."""

    def __init__(self, console: Console | None = None) -> None:
        """`console` is standard output unless given."""
        self._console = console or Console()
        self._step = Spinner("dots", "starting")
        self._scene: Scene | None = None
        self._is_over = False
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=_REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._live.stop()
        if self._scene is not None:
            self._console.print()

    def say(self, step: str) -> None:
        """Beside the spinner."""
        self._step.update(text=Text(step))

    def warn(self, line: str) -> None:
        """Above the table, on standard error."""
        print(f"demo: {line}", file=sys.stderr)

    def show(self, scene: Scene) -> None:
        """In the table, at its next refresh."""
        self._scene = scene

    def note(self, record: Record, outcome: Outcome) -> None:
        """Nothing: scenes hold the latest."""

    def _picture(self) -> RenderableType:
        scene = self._scene
        if scene is None:
            return Text("") if self._is_over else self._step
        parts: list[RenderableType] = [self._table(scene), Text(""), _progress(scene), _in_force(scene)]
        if not self._is_over:
            parts.append(self._step)
        return Group(*parts)

    def _table(self, scene: Scene) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="bold dim")
        is_wide = self._console.width >= _WIDE_COLUMNS
        table.add_column("id", no_wrap=True, overflow="ellipsis", width=12)
        if is_wide:
            table.add_column("topic", no_wrap=True, width=7, style="dim")
        table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=3)
        table.add_column("labels", no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column("label schema", no_wrap=True, width=16)
        rows = max(3, min(_ROWS, self._console.height - _FRAME_LINES))
        for outcome in scene.recent[-rows:]:
            topic = outcome.source[0]
            cells: list[RenderableType] = [Text(outcome.id), Text(topic)] if is_wide else [Text(outcome.id)]
            text = Text(_one_line(outcome.text), style="dim" if outcome.code else "")
            table.add_row(*cells, text, _labels(outcome), _schema(outcome))
        for _ in range(rows - len(scene.recent)):
            table.add_row("")
        return table


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _labels(outcome: Outcome) -> Text:
    if outcome.code is not None:
        return Text(outcome.code, style="red")
    if outcome.selected:
        shown = Text()
        for each in outcome.selected:
            shown.append(f"{each.label} ", style="green").append(f"{each.score:.2f}  ")
        return shown
    shown = Text(outcome.label or "none", style="yellow")
    if outcome.best is not None:
        shown.append(f" ({outcome.best.label} {outcome.best.score:.2f})", style="dim")
    return shown


def _schema(outcome: Outcome) -> Text:
    if outcome.code is not None:
        return Text("dead letter", style="red")
    if outcome.schema == _INLINE:
        return Text("its own", style="dim")
    return Text(f"{outcome.schema}@{outcome.version}", style="cyan" if outcome.version > 1 else "")


def _progress(scene: Scene) -> Table:
    back = scene.predictions + scene.dead_letters
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_row(
        ProgressBar(total=scene.expected, completed=back, width=24),
        Text(f"{back} of {scene.expected}", style="bold"),
        Text(f"{scene.per_second:.0f} messages/s"),
        Text(f"{scene.predictions} predicted", style="green"),
        Text(
            f"{scene.dead_letters} dead letter{'' if scene.dead_letters == 1 else 's'}",
            style="red" if scene.dead_letters else "",
        ),
    )
    return line


def _in_force(scene: Scene) -> Text:
    shown = Text("in force  ", style="dim")
    for name, version in scene.in_force.items():
        shown.append(f"{name}@{version}  ", style="cyan" if version > 1 else "none")
    return shown


def summary_lines(summary: Summary, columns: int = SUMMARY_COLUMNS) -> list[str]:
    """The summary for people, at most `columns` wide."""
    labels = [_versions(name, versions) for name, versions in summary.versions.items() if name != _INLINE]
    if _INLINE in summary.versions:
        labels.append("label sets of events' own")
    codes = ", ".join(f"{code} {count}" for code, count in summary.codes.items())
    facts = {
        "predictions": str(summary.predictions),
        "dead letters": f"{summary.dead_letters}{f': {codes}' if codes else ''}",
        "label schemas": "; ".join(labels) or "none",
        "engine": f"{summary.engine}, {summary.precision}",
        "delivery": f"{_DELIVERIES[summary.delivery]}, {_BROKERS[summary.broker]}",
        "speed": f"{summary.messages_per_second:.1f} messages/s: {summary.input} in {summary.seconds:.1f} s",
        "started in": ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.start_seconds.items()),
    }
    lines = [*textwrap.wrap(_verdict(summary), columns), ""]
    for name, fact in facts.items():
        lead = f"  {name:<15}"
        lines += textwrap.wrap(fact, columns, initial_indent=lead, subsequent_indent=" " * len(lead))
    return lines


def _verdict(summary: Summary) -> str:
    said = f"{summary.input} events in, {summary.predictions} predictions + {summary.dead_letters} dead letters out"
    if summary.is_complete:
        return f"{said}: each event exactly once"
    return f"{said}, of {summary.distinct} different events: THIS DOES NOT ADD UP"


def _versions(name: str, versions: tuple[int, ...]) -> str:
    listed = ", then ".join(str(version) for version in versions)
    return f"{name} version {listed}"
