"""The command `worker`: one module per command, and one way to say what went wrong."""

import sys

import typer

from worker import __version__
from worker.cli import (
    bench,
    broker,
    calibrate,
    check,
    classify,
    clean,
    completion,
    dead_letters,
    demo,
    engine,
    evaluate,
    finetune,
    init,
    plan,
    run,
    schemas,
    train,
)
from worker.cli.options import EXIT_INTERRUPTED, exit_code
from worker.errors import ConfigError, WorkerError


def build_app() -> typer.Typer:
    """Every command, each registered by its own module; none imports what it needs to run before it runs."""
    app = typer.Typer(
        name="worker",
        help="Streaming text classification: Kafka in, labels decided by an NLI model, predictions out.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # its tracebacks show local variables, and with them texts
    )
    app.callback()(_options)
    serving = (demo, init, run, check, classify, schemas, dead_letters, plan)
    measuring = (bench, train, finetune, evaluate, calibrate, engine, clean)
    for command in (*serving, *measuring, broker, completion):
        command.register(app)
    return app


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage or configuration, 130 interrupted."""
    try:
        build_app()()
    except WorkerError as error:
        problems = error.problems if isinstance(error, ConfigError) else (" ".join(str(error).split()),)
        sys.stderr.write("".join(f"worker: {problem}\n" for problem in problems))
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"worker {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
    ),
) -> None:
    del version  # its callback has done the work
