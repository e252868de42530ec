"""`worker train`: a recipe becomes a model."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.cli.options import made_folder

if TYPE_CHECKING:
    from worker.training.prepare import HeldOut
    from worker.training.sets import SetTable


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("train")(train)


def train(
    recipe: Path = typer.Argument(help="The recipe, YAML."),
    data: Path = typer.Option(Path(), help="The folder that the paths of the table of sets start from."),
    out: Path = typer.Option(..., help="A folder for models, checkpoints and logs; the same one goes on."),
    base: str | None = typer.Option(None, help="Start from this folder or Hugging Face id@commit."),
    hold_out_set: list[str] = typer.Option([], help="Train without this set; may be given again."),
    hold_out_cluster: list[str] = typer.Option([], help="Train without every set of this cluster."),
    folds: str | None = typer.Option(None, help="sets:N or clusters:N: N models, each without a part of the sets."),
    device: str = typer.Option("auto", help="auto | cpu | cuda"),
    precision: str = typer.Option("auto", help="auto (bfloat16 where it is fast) | bfloat16 | float32"),
    threads: int | None = typer.Option(None, min=1, help="CPU threads; without it every core it may use."),
    export: bool = typer.Option(True, help="Write the form that a worker runs, with 8-bit weights."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what each stage would see."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object per model; with --dry-run per plan."),
) -> None:
    """Train a universal classifier: data sets and their hypotheses become pairs, pairs a model, the model a folder.

    Killed and started again with the same recipe and --out, it goes on where it stopped.
    """
    import dataclasses
    import json

    from worker.cli.training_text import Bar, for_people, plan_text
    from worker.observability.logging import configure_logging
    from worker.training.prepare import HeldOut
    from worker.training.recipe import read_recipe
    from worker.training.train import RunOptions, plan
    from worker.training.train import train as run

    configure_logging("warning")
    wanted, table = read_recipe(recipe)
    held = HeldOut(tuple(hold_out_set), tuple(hold_out_cluster))
    variants = _folds(table, folds) if folds is not None else (held,)
    if dry_run:
        for variant in variants:
            planned = plan(wanted, table, variant, data)
            asked = wanted.model_dump(mode="json")
            print(
                json.dumps({**dataclasses.asdict(planned), "recipe": asked}) if as_json else plan_text(wanted, planned)
            )
        return
    made_folder("--out", out)
    for variant in variants:
        with Bar() as bar:
            options = RunOptions(
                data,
                out,
                base=base,
                device=device,
                precision=precision,
                threads=threads,
                has_export=export,
                command=_command(recipe, variant),
                progress=bar.stage,
                reading=bar.reading,
            )
            made = run(wanted, table, variant, options)
        print(json.dumps(dataclasses.asdict(made), default=str) if as_json else for_people(made))


def _folds(table: "SetTable", folds: str) -> "tuple[HeldOut, ...]":
    from worker.errors import ConfigError
    from worker.training.folds import folds_of_clusters, folds_of_sets

    kind, _, count = folds.partition(":")
    if kind not in {"sets", "clusters"} or not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"--folds: {folds}: expected sets:4 or clusters:4")
    return (folds_of_sets if kind == "sets" else folds_of_clusters)(table, int(count))


def _command(recipe: Path, held: "HeldOut") -> str:
    """The command without the paths of this machine."""
    words = ["worker train", recipe.name, "--data DATA", "--base BASE", "--out OUT"]
    words += [f"--hold-out-cluster {name}" for name in held.clusters]
    words += [f"--hold-out-set {name}" for name in held.sets]
    return " ".join(words)
