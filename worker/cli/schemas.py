"""`worker schemas`: label sets, looked at, compared and changed while workers run."""

from pathlib import Path

import typer

from worker.cli.options import EXIT_FAILED, EXIT_USAGE

CONFIG = typer.Option(Path("worker.yaml"), "-c", "--config", help="The configuration.")
JSON = typer.Option(False, "--json", help="One JSON object.")
SAMPLE = typer.Option(None, "--file", help="A sample: one input message (JSON) per line.")
YES = typer.Option(False, "--yes", help="Do not ask.")
SECONDS = typer.Option(60.0, "--timeout", min=0.0, help="Seconds to wait for every live worker.")
NO_WAIT = typer.Option(False, "--no-wait", help="Do not wait for the workers.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(help="Label schemas: what holds, what would change, and changing it while workers run.")
    for name, command in (
        ("validate", validate),
        ("lint", lint),
        ("list", list_),
        ("show", show),
        ("diff", diff),
        ("dry-run", dry_run),
        ("apply", apply),
        ("rollback", rollback),
        ("delete", delete),
        ("history", history),
    ):
        group.command(name)(command)
    group.callback()(_quiet)
    app.add_typer(group, name="schemas", no_args_is_help=True)


def validate(
    files: list[Path] = typer.Argument(help="Documents, YAML or JSON."),
    as_json: bool = JSON,
) -> None:
    """Check documents by themselves. Exits 1 if one would be refused, 2 if there is no such file."""
    from worker.cli.schemas_text import Sink
    from worker.labels.sources import checked_files

    sink, failed = Sink(as_json), False
    for file, outcome in checked_files(files):
        failed = failed or isinstance(outcome, str)
        if isinstance(outcome, str):
            sink.line(f"refused  {file}: {outcome}")
            sink.item("files", {"file": str(file), "valid": False, "reason": outcome})
        else:
            sink.line(f"ok       {file}: {outcome.reference}, {len(outcome.label_names)} labels")
            schema = {"name": outcome.name, "version": outcome.version, "digest": outcome.digest}
            sink.item("files", {"file": str(file), "valid": True, **schema})
    sink.end()
    if not all(file.is_file() for file in files):
        raise typer.Exit(EXIT_USAGE)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def lint(
    file: Path = typer.Argument(help="A document, YAML or JSON."),
    sample: Path | None = SAMPLE,
    last: int = typer.Option(0, min=0, help="Take the last so many records of the topics that use it."),
    config_file: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Ask the model about a label schema: labels that it cannot keep apart, templates that tell it nothing.

    Advice, not a judgement: exits 0 unless the schema cannot be used at all.
    """
    from worker.cli.schemas_text import Sink
    from worker.cli.trials_text import print_advice, print_missing, trial_of
    from worker.lint import lint as advise
    from worker.schema_desk import open_desk
    from worker.trials import open_trials

    with open_desk(config_file) as desk:
        trial = trial_of(desk, file, sample, last)
        sink = Sink(as_json)
        print_missing(trial, sink)
        with open_trials(desk.engine_choice(), desk.config.limits) as trials:
            print_advice(advise(trials.attempt, trial.schema, trial.records, trial.decode), sink)


def dry_run(
    file: Path = typer.Argument(help="The proposed version, YAML or JSON."),
    sample: Path | None = SAMPLE,
    last: int = typer.Option(200, min=1, help="Without --file: the last so many records of the topics that use it."),
    show_text: bool = typer.Option(False, "--show-text", help="Show the texts of the examples, not only their ids."),
    examples: int = typer.Option(10, min=0, help="How many examples to show."),
    config_file: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Score a sample under the present and the proposed version, and say what would change. Publishes nothing."""
    from worker.cli.schemas_text import Sink
    from worker.cli.trials_text import print_comparison, print_missing, trial_of
    from worker.schema_desk import open_desk
    from worker.trials import compare, open_trials

    with open_desk(config_file) as desk:
        trial = trial_of(desk, file, sample, last)
        sink = Sink(as_json)
        print_missing(trial, sink)
        with open_trials(desk.engine_choice(), desk.config.limits, desk.fill) as trials:
            present = trials.known.current(trial.schema.name)
            found = compare(trials.attempt, (present, trial.schema), trial.records, trial.decode)
    print_comparison(found, sink, examples, show_text=show_text)


def list_(config_file: Path = CONFIG, as_json: bool = JSON) -> None:
    """Every label schema: the version that holds, where it came from, what is refused, what workers answer."""
    from worker.cli.schemas_text import Sink, print_list
    from worker.schema_desk import open_desk

    with open_desk(config_file) as desk:
        print_list(desk, Sink(as_json))


def show(
    reference: str = typer.Argument(help="name or name@version."), config_file: Path = CONFIG, as_json: bool = JSON
) -> None:
    """One document, as YAML."""
    import json

    from worker.cli.schemas_text import as_yaml
    from worker.schema_desk import open_desk

    with open_desk(config_file) as desk:
        document = desk.document(reference)
    print(json.dumps(document, ensure_ascii=False) if as_json else as_yaml(document))


def diff(
    before: str = typer.Argument(help="name, name@version, or a file."),
    after: str = typer.Argument(help="name, name@version, or a file."),
    config_file: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """What changes from one label schema to another: labels, thresholds, templates."""
    from worker.cli.schemas_text import Sink, print_differences
    from worker.labels.diff import differences
    from worker.schema_desk import open_desk

    with open_desk(config_file) as desk:
        found = differences(desk.document(before), desk.document(after))
    sink = Sink(as_json)
    print_differences(found, sink)
    sink.end()


def apply(
    file: Path = typer.Argument(help="The new version, YAML or JSON."),
    config_file: Path = CONFIG,
    yes: bool = YES,
    timeout_seconds: float = SECONDS,
    no_wait: bool = NO_WAIT,
    as_json: bool = JSON,
) -> None:
    """Make a new version hold in every worker.

    Shows what changes, asks, writes, and waits until every live worker has accepted. Exits 1 if one has not.
    """
    from worker.cli.schemas_text import Ask, carry_out
    from worker.schema_desk import open_desk, read_file

    with open_desk(config_file, topic="apply") as desk:
        change = desk.proposal(read_file(file), str(file))
        carry_out(desk, change, Ask(yes, as_json, None if no_wait else timeout_seconds))


def rollback(
    name: str = typer.Argument(help="The label schema."),
    to: int | None = typer.Option(None, "--to", help="The version whose content is to hold again."),
    config_file: Path = CONFIG,
    yes: bool = YES,
    timeout_seconds: float = SECONDS,
    no_wait: bool = NO_WAIT,
    as_json: bool = JSON,
) -> None:
    """Make the content of a former version hold again, as a new version."""
    from worker.cli.schemas_text import Ask, carry_out
    from worker.schema_desk import open_desk

    with open_desk(config_file, topic="rollback") as desk:
        carry_out(desk, desk.rollback(name, to), Ask(yes, as_json, None if no_wait else timeout_seconds))


def delete(
    name: str = typer.Argument(help="The label schema."),
    config_file: Path = CONFIG,
    yes: bool = YES,
    as_json: bool = JSON,
) -> None:
    """Unbind a label schema that no binding uses; its versions stay, and are never used again."""
    from worker.cli.schemas_text import Ask, carry_out
    from worker.schema_desk import open_desk

    with open_desk(config_file, topic="delete") as desk:
        carry_out(desk, desk.deletion(name), Ask(yes, as_json, None))


def history(
    name: str = typer.Argument(help="The label schema."), config_file: Path = CONFIG, as_json: bool = JSON
) -> None:
    """Every version in the topic: when it was written, what it is, which one holds."""
    from worker.cli.schemas_text import Sink, print_history
    from worker.schema_desk import open_desk

    with open_desk(config_file, topic="history") as desk:
        print_history(desk.history(name), Sink(as_json))


def _quiet() -> None:
    from worker.observability.logging import configure_logging

    configure_logging("warning")
