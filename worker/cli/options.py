"""What several commands share: exit codes, and options that go before the configuration."""

import tempfile
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


def made_folder(option: str, folder: Path) -> Path:
    """`folder`, made where it is not there yet: asked for before the work whose outcome it is to hold.

    Raises:
        ConfigError: nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigError(f"{option} {folder}: expected a folder to write into ({error.strerror})") from None


def writable_file(option: str, file: Path) -> Path:
    """`file`, which may be there or not: asked for before the work whose outcome it is to hold.

    Raises:
        ConfigError: it cannot be written.
    """
    if file.is_dir():
        raise ConfigError(f"{option} {file}: expected a file, it is a folder")
    made_folder(option, file.parent)
    return file


def overrides_of(**options: str | None) -> dict[str, str]:
    """The options that were given, as configuration."""
    return {name: value for name, value in options.items() if value is not None}
