"""`worker plan`: how many workers, partitions and bytes a stream asks for."""

from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from worker.capacity import Machine, Workload

_INPUT = "The stream"
_SCHEMA = "The label schema"
_MACHINE = "The machine"
LongText = Literal["truncate", "windows"]
Emit = Literal["envelope", "merge", "prediction"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("plan")(plan)


def plan(
    messages_per_second: float = typer.Option(..., min=0.001, help="On average.", rich_help_panel=_INPUT),
    labels: int = typer.Option(..., min=1, help="Labels of a message.", rich_help_panel=_INPUT),
    tokens: int = typer.Option(..., min=1, help="Tokens of a text, on average.", rich_help_panel=_INPUT),
    peak_factor: float = typer.Option(2.0, min=1.0, help="Busiest minutes to average.", rich_help_panel=_INPUT),
    repeats: float = typer.Option(
        0.0, min=0.0, max=0.99, help="Share of messages whose text came not long before.", rich_help_panel=_INPUT
    ),
    message_bytes: int | None = typer.Option(
        None, min=1, help="Of an event; default: guessed from its tokens.", rich_help_panel=_INPUT
    ),
    partitions: int | None = typer.Option(
        None, min=1, help="That the input topics have; default: a number to create them with.", rich_help_panel=_INPUT
    ),
    emit: Emit = typer.Option("envelope", help="As in worker.yaml.", rich_help_panel=_INPUT),
    shortlist: int | None = typer.Option(None, min=1, help="Its `shortlist.top_k`.", rich_help_panel=_SCHEMA),
    hypotheses_per_label: int = typer.Option(
        1, min=1, help="Templates, and one more with `negative`.", rich_help_panel=_SCHEMA
    ),
    hypothesis_tokens: int = typer.Option(10, min=1, help="Of a filled template.", rich_help_panel=_SCHEMA),
    long_text: LongText = typer.Option("truncate", help="Its `long_text.strategy`.", rich_help_panel=_SCHEMA),
    tokens_per_second: float | None = typer.Option(
        None,
        min=1.0,
        help="Of one worker's engine, by `worker bench engine` there; default: the bundled model on two cores.",
        rich_help_panel=_MACHINE,
    ),
    utilisation: float | None = typer.Option(
        None, min=0.05, max=1.0, help="Share of what a worker can do that is planned with.", rich_help_panel=_MACHINE
    ),
    model_mib: int | None = typer.Option(
        None, min=1, help="The model in the machine's memory, if not the bundled one.", rich_help_panel=_MACHINE
    ),
    max_pair_tokens: int = typer.Option(512, min=16, help="That the model takes.", rich_help_panel=_MACHINE),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """From messages a second, labels and tokens to workers, partitions, memory and bytes: docs/capacity.md.

    Exits 1 where the partitions there are do not suffice.
    """
    import json

    from worker.capacity import Workload, make_plan
    from worker.cli.options import EXIT_FAILED
    from worker.cli.plan_text import as_object, lines

    workload = Workload(
        messages_per_second=messages_per_second,
        labels=labels,
        tokens=tokens,
        hypothesis_tokens=hypothesis_tokens,
        hypotheses_per_label=hypotheses_per_label,
        shortlist=shortlist,
        max_pair_tokens=max_pair_tokens,
        windows=long_text == "windows",
        repeats=repeats,
        peak_factor=peak_factor,
        message_bytes=message_bytes,
        with_event=emit != "prediction",
    )
    _check(workload, tokens_per_second)
    machine = _machine(tokens_per_second, utilisation, model_mib)
    found = make_plan(workload, machine, partitions)
    is_measured = tokens_per_second is not None
    if as_json:
        print(json.dumps(as_object(workload, machine, found, is_measured=is_measured)))
    else:
        print("\n".join(lines(workload, machine, found, is_measured=is_measured)))
    if found.workers is None:
        raise typer.Exit(EXIT_FAILED)


def _machine(tokens_per_second: float | None, utilisation: float | None, model_mib: int | None) -> "Machine":
    from worker.capacity import BUNDLED_MODEL_MIB, BUNDLED_TOKENS_PER_SECOND, UTILISATION, Machine

    return Machine(
        BUNDLED_TOKENS_PER_SECOND if tokens_per_second is None else tokens_per_second,
        utilisation=UTILISATION if utilisation is None else utilisation,
        model_mib=BUNDLED_MODEL_MIB if model_mib is None else model_mib,
    )


def _check(workload: "Workload", tokens_per_second: float | None) -> None:
    """What the options' own bounds let through.

    Raises:
        ConfigError: a number is none, or an option says what cannot be.
    """
    import math

    from worker.capacity import SPECIAL_TOKENS
    from worker.errors import ConfigError

    given = {
        "--messages-per-second": workload.messages_per_second,
        "--peak-factor": workload.peak_factor,
        "--repeats": workload.repeats,
        "--tokens-per-second": tokens_per_second,
    }
    for option, number in given.items():
        if number is not None and not math.isfinite(number):
            raise ConfigError(f"{option}: expected a finite number")
    if workload.hypothesis_tokens + SPECIAL_TOKENS >= workload.max_pair_tokens:
        raise ConfigError("--hypothesis-tokens: expected less than --max-pair-tokens, so that there is room for a text")
