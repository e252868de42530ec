"""`worker dead-letters`: what could not be predicted, why, and once more."""

import json
from pathlib import Path

import typer

from worker.cli.options import CONFIG

CODE = typer.Option(None, "--code", help="Only of this code; may be repeated.")
TOPIC = typer.Option(None, "--topic", help="Only of this input topic, or in this dead letter topic.")
SINCE = typer.Option(None, "--since", help="Only events from this time on: RFC 3339, or an age as 10m, 2h, 1d.")
UNTIL = typer.Option(None, "--until", help="Only events before this time: RFC 3339, or an age.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    commands = typer.Typer(no_args_is_help=True, help="Look through dead letter topics, and replay what is in them.")
    commands.command("list")(list_letters)
    commands.command("show")(show)
    commands.command("replay")(replay)
    app.add_typer(commands, name="dead-letters")


def list_letters(
    config_file: Path = CONFIG,
    code: list[str] | None = CODE,
    topic: str | None = TOPIC,
    since: str | None = SINCE,
    until: str | None = UNTIL,
    as_json: bool = typer.Option(False, "--json", help="One JSON object per line."),
) -> None:
    """List dead letters: position, code, stage, attempts, size, event time, source and reason; never a text."""
    from worker.cli.letters_text import Lines, counts_line, desk_of, wanted_of
    from worker.dead_letters.selection import Tally

    desk, tally = desk_of(config_file), Tally()
    topics = desk.topics(topic)
    lines = Lines(topics, as_json=as_json)
    lines.head()
    for letter in desk.letters(topics, wanted_of(desk, topic, code, (since, until)), tally):
        lines.letter(letter)
    if not as_json:
        print(counts_line("dead letters", tally))


def show(
    position: str = typer.Argument(help="topic/partition/offset of the dead letter, as `list` prints it."),
    config_file: Path = CONFIG,
    show_text: bool = typer.Option(False, "--show-text", help="Print key, value and the event's headers too."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Show one dead letter: its headers; of the event itself only names and sizes, unless asked to."""
    from worker.cli.letters_text import desk_of, details, print_details
    from worker.dead_letters.selection import parse_position

    told = details(desk_of(config_file).find(parse_position(position)), show_text=show_text)
    if as_json:
        print(json.dumps(told))
    else:
        print_details(told)


def replay(
    config_file: Path = CONFIG,
    code: list[str] | None = CODE,
    topic: str | None = TOPIC,
    since: str | None = SINCE,
    until: str | None = UNTIL,
    max_attempts: int = typer.Option(3, min=1, help="Leave those alone that were tried this often."),
    yes: bool = typer.Option(False, "--yes", help="Send; without it nothing is written."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object per line, the last one a summary."),
) -> None:
    """Send dead letters to their input topics again, each once: what was replayed before is left out."""
    from worker.cli.letters_text import Lines, counts_line, desk_of, skipped_lines, summary_of, wanted_of
    from worker.dead_letters.selection import Tally

    desk, tally = desk_of(config_file), Tally()
    topics = desk.topics(topic)
    rules = desk.rules(wanted_of(desk, topic, code, (since, until)), max_attempts)
    lines = Lines(topics, as_json=as_json)
    lines.head()
    for letter in (desk.replay if yes else desk.rehearse)(topics, rules, tally):
        lines.letter(letter)
    if as_json:
        print(json.dumps(summary_of(tally, is_sent=yes)))
        return
    print(counts_line("sent" if yes else "would be sent", tally))
    for line in skipped_lines(tally):
        print(line)
    if not yes and tally.total:
        print("nothing was written: add --yes to send")
