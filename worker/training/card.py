"""What a trained model says of itself: a file for programs, and a card for people."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from worker.training.finetune import Learnt
from worker.training.prepare import HeldOut, SetUse
from worker.training.recipe import Recipe

PROVENANCE_FILE: Final = "training.json"
CARD_FILE: Final = "README.md"


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What a stage saw, and what it came to."""

    name: str
    uses: tuple[SetUse, ...]
    learnt: Learnt
    pairs_dropped: int

    def write(self, file: Path) -> None:
        """Write it to `file`, whole or not at all."""
        part = file.with_suffix(".part")
        part.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
        part.replace(file)

    @classmethod
    def read(cls, file: Path) -> "StageFacts":
        """What `write` wrote."""
        return cls.of(json.loads(file.read_bytes()))

    @classmethod
    def of(cls, found: dict[str, Any]) -> "StageFacts":
        """The facts in an object of JSON."""
        uses = tuple(SetUse(**use) for use in found["uses"])
        return cls(found["name"], uses, Learnt(**found["learnt"]), found["pairs_dropped"])


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from."""

    name: str
    variant: str
    held_out: HeldOut
    stages: tuple[StageFacts, ...]
    recipe: str
    """The recipe as JSON."""
    command: str
    base: str = ""
    """What training started from; blank in files of earlier versions."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        variant: str,
        held_out: HeldOut,
        stages: tuple[StageFacts, ...],
        origin: tuple[str, str],
    ) -> "Provenance":
        """That of a model trained by `recipe` so far; `origin` is its base and the command."""
        base, command = origin
        return cls(recipe.name, variant, held_out, stages, recipe.model_dump_json(exclude_unset=True), command, base)

    @property
    def uses(self) -> tuple[SetUse, ...]:
        """Every set that any stage saw, once; of its stages' figures the last one's."""
        return tuple({use.name: use for stage in self.stages for use in stage.uses}.values())

    def trained_on(self, kind: str) -> frozenset[str]:
        """The names of the sets of a kind."""
        return frozenset(use.name for use in self.uses if use.kind == kind)

    def clusters(self) -> frozenset[str]:
        """Every cluster that any stage saw; of NLI sets those that were recast from such a task have its cluster."""
        return frozenset(use.cluster for use in self.uses)


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `training.json` into a model folder."""
    text = json.dumps(dataclasses.asdict(provenance), indent=1, ensure_ascii=False)
    (folder / PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> Provenance | None:
    """What `training.json` of a model folder says; None where there is none, or it is not ours."""
    try:
        found = json.loads((folder / PROVENANCE_FILE).read_bytes())
        return Provenance(
            found["name"],
            found["variant"],
            HeldOut(tuple(found["held_out"]["sets"]), tuple(found["held_out"]["clusters"])),
            tuple(StageFacts.of(stage) for stage in found["stages"]),
            found["recipe"],
            found["command"],
            found.get("base", ""),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_card(folder: Path, provenance: Provenance, extra: Sequence[str] = ()) -> None:
    """Write `README.md` into a model folder; `extra` are paragraphs that follow."""
    (folder / CARD_FILE).write_text("\n".join((*_card(provenance), *extra)) + "\n", encoding="utf-8")


def _card(provenance: Provenance) -> list[str]:
    uses = provenance.uses
    unfit = sorted(use.name for use in uses if use.ship != "yes")
    held = ", ".join((*provenance.held_out.clusters, *provenance.held_out.sets)) or "nothing"
    lines = [
        f"# {provenance.name} ({provenance.variant})",
        "",
        "A 2-class NLI classifier: a text, a sentence about it, and whether the sentence follows.",
        "",
        *([f"Base: {provenance.base}."] if provenance.base else []),
        f"Held out: {held}.",
        f"Command: `{provenance.command}`.",
        "",
    ]
    if unfit:
        lines += [
            f"**Not to be given away.** The licences of {len(unfit)} sets forbid it or were not checked:",
            f"{', '.join(unfit)}.",
            "",
        ]
    lines += ["## Training", ""]
    lines += ["| stage | pairs | steps | loss, first tenth | last tenth | held back | majority | seconds |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [_stage_line(stage) for stage in provenance.stages]
    lines += [
        "",
        "`held back` is the accuracy on pairs that no step saw; their texts may stand in pairs that were.",
        "",
        *_data(provenance),
        *_recipe(provenance),
    ]
    return lines


def _data(provenance: Provenance) -> Iterator[str]:
    stages = provenance.stages
    yield "## Data"
    yield ""
    yield "Rows are those of the stage that took the most; pairs are those that each stage was given of the set."
    yield ""
    columns = "".join(f" pairs in {stage.name} |" for stage in stages)
    yield f"| set | kind | cluster | classes | rows |{columns} licence | may be shipped |"
    yield f"|---|---|---|---|---|{'---|' * len(stages)}---|---|"
    found = [{use.name: use for use in stage.uses} for stage in stages]
    for use in provenance.uses:
        of_stages = [of_stage.get(use.name) for of_stage in found]
        rows = max(each.rows for each in of_stages if each is not None)
        pairs = "".join(f" {each.pairs} |" if each is not None else " |" for each in of_stages)
        set_ = f"{use.name} | {use.kind} | {use.cluster} | {use.classes} | {rows}"
        yield f"| {set_} |{pairs} {use.licence} | {use.ship} |"


def _recipe(provenance: Provenance) -> Iterator[str]:
    """The document that all this came from, as far as it was carried out; the base is told above."""
    document = json.loads(provenance.recipe) if provenance.recipe else {}
    document.pop("base", None)  # may be a folder of some machine
    if document:
        names = {stage.name for stage in provenance.stages}
        document["stages"] = [stage for stage in document.get("stages", ()) if stage["name"] in names]
        yield from ("", "## Recipe", "", "```yaml")
        yield yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=118).rstrip()
        yield "```"


def _stage_line(stage: StageFacts) -> str:
    learnt = stage.learnt
    accuracy = "" if learnt.held_back_accuracy is None else f"{learnt.held_back_accuracy:.3f}"
    majority = "" if learnt.majority is None else f"{learnt.majority:.3f}"
    return (
        f"| {stage.name} | {learnt.pairs} | {learnt.steps} | {learnt.first_loss:.4f} | {learnt.last_loss:.4f} "
        f"| {accuracy} | {majority} | {learnt.seconds:.0f} |"
    )
