"""`worker check`: what would run and what would not, before it runs."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from worker.cli.options import CONFIG, EXIT_FAILED

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("check")(check)


def check(
    config_file: Path = CONFIG,
    create_topics: bool = typer.Option(False, "--create-topics", help="First create the topics that are missing."),
    partitions: int = typer.Option(6, min=1, help="Of the inputs that --create-topics creates."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Look at configuration, label schemas, model, broker and topics. Exits 1 if something would not run.

    Changes nothing, unless it is told to create topics: inputs with --partitions, what is written with as many.
    """
    from worker.checks import look
    from worker.clock import SystemClock
    from worker.cluster_checks import Finding
    from worker.config import load_config
    from worker.observability.logging import configure_logging

    configure_logging("error")
    config = load_config(config_file)
    seen: list[Finding] = []
    if not as_json:
        print(f"{_MARKS['ok']} {config_file}: {len(config.topics)} topics, delivery {config.delivery}")
    for finding in look(config, SystemClock(), partitions if create_topics else None):
        seen.append(finding)
        if not as_json:
            print(f"{_MARKS[finding.verdict]} {finding.subject}: {finding.message}")
    failed = any(finding.verdict == "failed" for finding in seen)
    if as_json:
        print(json.dumps({"runs": not failed, "findings": [asdict(finding) for finding in seen]}))
    if failed:
        raise typer.Exit(EXIT_FAILED)
