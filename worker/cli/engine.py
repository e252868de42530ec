"""`worker engine`: build a model's TensorRT plan, check an engine against float32, say what is known of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.cli.options import EXIT_FAILED

if TYPE_CHECKING:
    from worker.engines.trt_order import PlanForm

MODEL = typer.Argument(..., help="`bundled`, a folder, or a Hugging Face id@revision.")
AS_JSON = typer.Option(False, "--json", help="One JSON object.")
CACHE = typer.Option(None, help="Where plans are kept; without it the user's cache folder.")
LAYOUT = typer.Option("padded", help="padded | lengths | packed: which plan.")
MAX_TOKENS = typer.Option(16_384, min=1, help="Tokens of one run of the plan.")
BUCKETS = typer.Option(None, help="Lengths that the plan pads to, with commas between them.")
LEVEL = typer.Option(3, min=0, max=5, help="How long was looked for faster kernels of the plan.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(help="Build, verify and look at engines.", no_args_is_help=True)
    group.command("build")(build)
    group.command("verify")(verify)
    group.command("info")(info)
    app.add_typer(group, name="engine")


def build(
    model: str = typer.Argument(..., help="A folder, or a Hugging Face id@revision, with safetensors."),
    precision: str = typer.Option("auto", help="auto | float16 | bfloat16 | float32 | float8"),
    layout: str = LAYOUT,
    max_tokens: int = MAX_TOKENS,
    buckets: str | None = BUCKETS,
    level: int = typer.Option(3, min=0, max=5, help="How long to look for faster kernels."),
    seconds: float = typer.Option(3600.0, min=1, help="After which a build is given up."),
    again: bool = typer.Option(False, "--again", help="Build even where a plan is kept."),
    cache_dir: Path | None = CACHE,
    as_json: bool = AS_JSON,
) -> None:
    """Build a TensorRT plan for this machine's GPU, check it against float32 and keep it.

    Without a precision the fastest that agrees with float32 is kept. Exits 1 if none does. A worker finds the plan if
    its configuration says the same under `tensorrt`.
    """
    from worker.cli.engine_text import BuildPrinter, form_as_text, plan_as_text
    from worker.engines.plan_workshop import Wish, build_checked
    from worker.observability.logging import configure_logging

    configure_logging("warning")
    wish = Wish(model, precision, form_of(layout, max_tokens, buckets, level), seconds, again, cache_dir)
    with BuildPrinter(is_quiet=as_json) as printer:
        checked = build_checked(wish, printer.show)
    print(json.dumps(checked.as_object()) if as_json else plan_as_text(checked.as_object()) + form_as_text(wish.form))
    if not checked.report.passed:
        raise typer.Exit(EXIT_FAILED)


def verify(
    model: str = MODEL,
    engine: str = typer.Option("auto", help="auto | tensorrt | pytorch | openvino"),
    precision: str = typer.Option("auto", help="auto | float32 | float16 | bfloat16 | float8"),
    layout: str = LAYOUT,
    max_tokens: int = MAX_TOKENS,
    buckets: str | None = BUCKETS,
    level: int = LEVEL,
    cache_dir: Path | None = CACHE,
    as_json: bool = AS_JSON,
) -> None:
    """Measure an engine against the float32 model, and against itself in other batches. Exits 1 if it fails."""
    from worker.cli.engine_text import as_object, as_text
    from worker.engines.load import EngineChoice, load_engine
    from worker.observability.logging import configure_logging

    configure_logging("error")
    form = form_of(layout, max_tokens, buckets, level)
    choice = EngineChoice(model, engine, precision, strict=precision != "auto", cache_dir=cache_dir, plan=form)
    loaded = load_engine(choice, is_fresh=True)
    try:
        print(json.dumps(as_object(loaded)) if as_json else as_text(loaded))
    finally:
        loaded.engine.close()
    if loaded.gate is None:
        raise typer.Exit(EXIT_FAILED)


def info(
    model: str | None = typer.Argument(None, help="As for `verify`; without it, the plans that are kept."),
    engine: str = typer.Option("auto", help="auto | tensorrt | pytorch | openvino"),
    precision: str = typer.Option("auto", help="auto | float32 | float16 | bfloat16 | float8"),
    layout: str = LAYOUT,
    max_tokens: int = MAX_TOKENS,
    buckets: str | None = BUCKETS,
    level: int = LEVEL,
    cache_dir: Path | None = CACHE,
    as_json: bool = AS_JSON,
) -> None:
    """Say what an engine is and what the gate measured of it; or list the plans that are kept."""
    from worker.cli.engine_text import as_object, as_text, plan_as_text
    from worker.engines.load import EngineChoice, load_engine
    from worker.engines.trt_builder import plan_store
    from worker.engines.verdicts import default_cache_dir
    from worker.observability.logging import configure_logging

    configure_logging("error")
    if model is None:
        kept = [
            {"plan": plan.folder.name, **asdict(plan)["facts"], **plan.notes}
            for plan in plan_store(cache_dir or default_cache_dir()).plans()
        ]
        print(json.dumps(kept) if as_json else "\n".join(map(plan_as_text, kept)) or "no plan is kept")
        return
    form = form_of(layout, max_tokens, buckets, level)
    loaded = load_engine(EngineChoice(model, engine, precision, cache_dir=cache_dir, plan=form))
    try:
        print(json.dumps(as_object(loaded)) if as_json else as_text(loaded))
    finally:
        loaded.engine.close()


def form_of(layout: str, max_tokens: int, buckets: str | None, level: int) -> "PlanForm":
    """What the options say of a plan.

    Raises:
        ConfigError: a bucket is no length.
    """
    from worker.engines.trt_order import PlanForm

    return PlanForm(layout, max_tokens, lengths_in(buckets), level)


def lengths_in(text: str | None) -> tuple[int, ...]:
    """The lengths in a line with commas between them.

    Raises:
        ConfigError: one of them is no length.
    """
    from worker.errors import ConfigError

    try:
        lengths = tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        lengths = (0,)
    if any(length < 1 for length in lengths):
        raise ConfigError("--buckets: expected lengths in tokens with commas between them, as 64,128,256")
    return lengths
