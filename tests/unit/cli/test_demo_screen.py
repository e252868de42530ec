"""What people see of the demo."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from worker.cli.demo_screen import Screen, summary_lines
from worker.demo.tally import Outcome, Scene, Summary
from worker.types import LabelScore

SUMMARY = Summary(
    input=300,
    predictions=276,
    dead_letters=24,
    distinct=300,
    codes={"json_invalid": 20, "text_empty": 4},
    versions={"support-intent": (1, 2), "inline": (0,)},
    broker="mock",
    delivery="at_least_once",
    engine="openvino",
    precision="bfloat16",
    seconds=10.0,
    start_seconds={"broker": 3.0, "model": 2.0},
)
PREDICTED = Outcome(
    id="t-1",
    source=("support", 0, 0),
    text="The app\ncrashes.",
    selected=(LabelScore("bug", 0.914),),
    label="bug",
    best=LabelScore("bug", 0.914),
    schema="support-intent",
    version=2,
)
SCENE = Scene(
    expected=300, sent=180, predictions=1, dead_letters=1, per_second=41.6, recent=(), in_force={"support-intent": 2}
)


def seen(*outcomes: Outcome, width: int = 110, height: int = 30) -> str:
    """The last picture of a screen on which `outcomes` are the latest."""
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=height,
        color_system=None,
        _environ={"TERM": "xterm"},
    )
    with Screen(console) as screen:
        screen.show(replace(SCENE, recent=outcomes))
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def test_a_prediction_is_shown_with_its_text_its_label_and_the_version_that_decided() -> None:
    line = next(line for line in seen(PREDICTED).splitlines() if "t-1" in line)

    assert ["t-1", "support", "The", "app", "crashes.", "bug", "0.91", "support-intent@2"] == line.split()


def test_a_dead_letter_is_shown_with_its_code() -> None:
    outcome = Outcome(id="posts/1/4", source=("posts", 1, 4), text="{", code="json_invalid")

    line = next(line for line in seen(outcome).splitlines() if "posts/1/4" in line)

    assert ["posts/1/4", "posts", "{", "json_invalid", "dead", "letter"] == line.split()


@pytest.mark.parametrize(("label", "said"), [("other", "other (bug 0.91)"), (None, "none (bug 0.91)")])
def test_where_nothing_is_selected_the_best_label_is_shown_in_brackets(label: str | None, said: str) -> None:
    assert said in seen(replace(PREDICTED, selected=(), label=label))


def test_a_label_set_of_the_events_own_is_called_so() -> None:
    assert "its own" in seen(replace(PREDICTED, schema="inline", version=0))


def test_counts_rate_and_versions_in_force_are_shown() -> None:
    picture = seen(PREDICTED)

    for part in ("2 of 300", "42 messages/s", "1 predicted  1 dead letter\n", "in force  support-intent@2"):
        assert part in picture


def test_what_a_text_holds_is_never_taken_for_markup() -> None:
    assert "[bold]x[/bold]" in seen(replace(PREDICTED, text="[bold]x[/bold]"))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 12), (200, 60)])
def test_the_picture_fits_the_terminal(width: int, height: int) -> None:
    lines = seen(*[PREDICTED] * 40, width=width, height=height).splitlines()

    assert all(len(line) <= width + len("\x1b[?25l\x1b[?25h\x1b[2K\x1b[1A\r") for line in lines)
    assert any("t-1" in line for line in lines)
    assert sum("t-1" in line for line in lines) < height


def test_before_the_first_event_only_the_step_is_shown() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, _environ={"TERM": "xterm"})
    with Screen(console) as screen:
        screen.say("loading the [model]")
        console.print()
    written = console.file
    assert isinstance(written, io.StringIO)

    assert "loading the [model]" in written.getvalue()


def test_the_summary_says_that_it_adds_up() -> None:
    lines = summary_lines(SUMMARY)

    assert "300 events in, 276 predictions + 24 dead letters out: each event exactly once" == lines[0]
    assert "  dead letters   24: json_invalid 20, text_empty 4" in lines
    assert "  label schemas  support-intent version 1, then 2; label sets of events' own" in lines
    assert "  delivery       at least once, on librdkafka's mock cluster, which has no transactions" in lines
    assert "  speed          30.0 messages/s: 300 in 10.0 s" in lines


@pytest.mark.parametrize("columns", [40, 80])
def test_the_summary_is_no_wider_than_asked(columns: int) -> None:
    assert [] == [line for line in summary_lines(SUMMARY, columns) if len(line) > columns]


def test_the_summary_says_that_it_does_not() -> None:
    lines = summary_lines(replace(SUMMARY, predictions=275, distinct=299))

    expected = "300 events in, 275 predictions + 24 dead letters out, of 299 different events: THIS DOES NOT ADD UP"
    assert expected == lines[0]
