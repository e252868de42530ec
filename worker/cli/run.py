"""`worker run`: the worker."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from worker.cli.options import CONFIG, EXIT_INTERRUPTED, overrides_of

if TYPE_CHECKING:
    from worker.config import Config
    from worker.lifecycle import Lifecycle

LogFormat = Literal["auto", "json", "console"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run)


def run(
    config_file: Path = CONFIG,
    engine: str | None = typer.Option(None, help="Instead of the configured engine."),
    until_end: bool = typer.Option(False, help="Stop at the end offsets seen at start."),
    workers: str = typer.Option("1", help="Processes on this machine; `auto`: one per GPU, or per four cores."),
    log_format: LogFormat = typer.Option("auto", help="`auto`: readable on a terminal, else JSON."),
    until_parent_ends: bool = typer.Option(False, hidden=True),
) -> None:
    """Read events, predict, publish, until SIGTERM or Ctrl-C; a second one leaves at once."""
    from worker.lifecycle import Lifecycle, share_the_heap, spare_the_collector, stop_on_signals

    # Before anything that takes time. Leaving in the midst is safe: what was not committed is read again.
    lifecycle = Lifecycle()
    stop_on_signals(lifecycle.stop, lambda: os._exit(EXIT_INTERRUPTED))
    share_the_heap()

    from worker.app import open_worker
    from worker.config import load_config
    from worker.observability.logging import configure_logging

    config = load_config(config_file, overrides_of(engine=engine))
    configure_logging(config.log_level, log_format)
    if until_parent_ends:
        from worker.supervisor import end_with_parent

        end_with_parent(lifecycle)
    elif workers != "1":
        options = ["--log-format", log_format, *(["--engine", engine] if engine else [])]
        _run_fleet(config, workers, [*options, *(["--until-end"] if until_end else [])], (config_file, lifecycle))
        return
    with open_worker(config, lifecycle=lifecycle) as worker:
        spare_the_collector()
        worker.run(until_end=until_end)


def _run_fleet(config: "Config", workers: str, options: list[str], place: "tuple[Path, Lifecycle]") -> None:
    from worker.engines.ov_machine import usable_cores
    from worker.fleet import shares
    from worker.lifecycle import stop_on_signals
    from worker.supervisor import Supervisor, child_command, visible_gpus

    config_file, lifecycle = place
    fleet = shares(workers, config.threads or usable_cores(), visible_gpus(os.environ))
    supervisor = Supervisor(config, child_command(config_file, options), fleet, lifecycle)
    stop_on_signals(lifecycle.stop, supervisor.leave)
    supervisor.run()
