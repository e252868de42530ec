"""`worker run`: the worker."""

import os
from pathlib import Path
from typing import Literal

import typer

from worker.cli.options import CONFIG, EXIT_INTERRUPTED, existing, overrides_of

LogFormat = Literal["auto", "json", "console"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run)


def run(
    config_file: Path = CONFIG,
    engine: str | None = typer.Option(None, help="Instead of the configured engine."),
    until_end: bool = typer.Option(False, help="Stop at the end offsets seen at start."),
    log_format: LogFormat = typer.Option("auto", help="`auto`: readable on a terminal, else JSON."),
) -> None:
    """Read events, predict, publish, until SIGTERM or Ctrl-C; a second one leaves at once."""
    from worker.lifecycle import Lifecycle, spare_the_collector, stop_on_signals

    # Before anything that takes time. Leaving in the midst is safe: what was not committed is read again.
    lifecycle = Lifecycle()
    stop_on_signals(lifecycle.stop, lambda: os._exit(EXIT_INTERRUPTED))

    from worker.app import open_worker
    from worker.config import load_config
    from worker.observability.logging import configure_logging

    config = load_config(existing(config_file), overrides_of(engine=engine))
    configure_logging(config.log_level, log_format)
    with open_worker(config, lifecycle=lifecycle) as worker:
        spare_the_collector()
        worker.run(until_end=until_end)
