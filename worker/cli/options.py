"""What several commands share: exit codes, and options that go before the configuration."""

from pathlib import Path

import typer

from worker.errors import ConfigError, SchemaError, WorkerError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
CONFIG = typer.Option(Path("worker.yaml"), "-c", "--config", help="The configuration.")


def exit_code(error: WorkerError) -> int:
    """2 where the operator has to change something, else 1."""
    return EXIT_USAGE if isinstance(error, ConfigError | SchemaError) else EXIT_FAILED


def overrides_of(**options: str | None) -> dict[str, str]:
    """The options that were given, as configuration."""
    return {name: value for name, value in options.items() if value is not None}
