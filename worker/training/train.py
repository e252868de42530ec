"""A recipe carried out: stages one after the other, then the model folder, its bundled form, and its card.

In the folder that is named for it:

work/STAGE-KEY/     pairs, checkpoint, journal and model of one stage; KEY names all that went into it, and
                    data.sha256 the contents of its files: where they change, it is another stage
nli-only/model      the model before it saw a classification set, where a stage ends so
VARIANT/model       safetensors, training.json and the card; VARIANT is `all`, or names what was held out
VARIANT/openvino    the form with 8-bit weights, past its gate
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.clock import Clock, SystemClock
from worker.engines.artifact import TOKENIZER_FILE, file_sha256
from worker.errors import ConfigError
from worker.training.bases import base_digest, base_folder, base_name, check_fits
from worker.training.card import Provenance, StageFacts, read_provenance, write_card, write_provenance
from worker.training.exported import Exported, export_bundled
from worker.training.finetune import CHECKPOINT_FILE, Loop, Progress, finetune
from worker.training.journal import Journal
from worker.training.place import chosen_place
from worker.training.prepare import HeldOut, SetUse, Source, Told, counted, stage_data, stage_table, untold
from worker.training.recipe import Recipe, Stage
from worker.training.sets import SetTable
from worker.training.store import PairJoiner, is_stored, open_store, write_store
from worker.training.weights import load_trainable, need_torch, save_trained

DATA_FILE: Final = "data.sha256"
DONE_FILE: Final = "done.json"
JOURNAL_FILE: Final = "log.jsonl"
NLI_ONLY: Final = "nli-only"
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where a recipe is carried out, and on what."""

    data: Path
    out: Path
    base: str | None = None
    """Instead of the recipe's own."""
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    cache_dir: Path | None = None
    """Where the gate keeps its verdicts."""
    has_export: bool = True
    command: str = "worker train"
    """For the card."""
    clock: Clock = field(default_factory=SystemClock)
    progress: Callable[[str], Progress] = field(default=lambda stage: lambda step, steps, loss: None)  # noqa: ARG005
    """Given the name of a stage, what is told of its steps."""
    reading: Callable[[str], Told] = field(default=lambda name: untold)  # noqa: ARG005
    """Given a name, what is told of files and pairs before the steps."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out."""

    variant: str
    model: Path
    exported: Exported | None
    stages: tuple[StageFacts, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training would see."""

    variant: str
    stages: tuple[tuple[str, tuple[SetUse, ...]], ...]
    """By name, in order."""


@dataclass(frozen=True, slots=True)
class _Point:
    """Where a run stands: a model, and a name for everything that went into it."""

    folder: Path
    key: str
    stages: tuple[StageFacts, ...] = ()


def train(recipe: Recipe, table: SetTable, held_out: HeldOut, options: RunOptions) -> Trained:
    """Carry out `recipe` without what is held out. Blocks for minutes to days; goes on where a killed run stopped.

    Raises:
        ConfigError: files are missing, or options name something that is not there.
        EngineError: torch is missing, the base cannot be trained or its loss is no number any more, or the bundled form
            does not pass its gate.
    """
    chosen_place(need_torch(), options.device, options.precision)  # before hours of reading
    left = held_out.leaves(table)
    named = options.base or recipe.base
    base = base_folder(named)
    _check_is_no_target(base, held_out, options)
    known = read_provenance(base)
    if known is not None:
        check_fits(known, recipe, held_out)
    origin = base_name(named or "", base) + (f", which started from {known.base}" if known and known.base else "")
    start = _Point(base, _digest("base", str(recipe.max_pair_tokens), base_digest(base)), _stages_of(known))
    point = start
    for stage in recipe.stages:
        before = point
        if stage.classification is not None and before is not start and not _saw_classes(before.stages):
            alone = Provenance.of(recipe, NLI_ONLY, held_out, before.stages, (origin, options.command))
            _publish(before, alone, options)
        point = _stage(stage, recipe, (stage_table(stage, left, table), table), point, options)
    name = variant_name(held_out) if _saw_classes(point.stages) else NLI_ONLY
    provenance = Provenance.of(recipe, name, held_out, point.stages, (origin, options.command))
    model = _publish(point, provenance, options)
    wants_export = options.has_export and not held_out.sets and not held_out.clusters
    exported = export_bundled(model, options.cache_dir) if wants_export else None
    return Trained(name, model, exported, point.stages)


def plan(recipe: Recipe, table: SetTable, held_out: HeldOut, data: Path) -> Plan:
    """What `train` would see; reads the files, and starts nothing.

    Raises:
        ConfigError: as `train`.
    """
    left = held_out.leaves(table)
    tables = ((stage, stage_table(stage, left, table)) for stage in recipe.stages)
    source = Source.of(table, data)
    stages = ((stage.name, stage_data(stage, each, source, recipe.seed).uses) for stage, each in tables)
    return Plan(variant_name(held_out), tuple(stages))


def variant_name(held_out: HeldOut) -> str:
    """`all`, or what was held out."""
    if not held_out.sets and not held_out.clusters:
        return ALL
    names = "+".join((*held_out.clusters, *held_out.sets))
    kind = "without-clusters" if held_out.clusters and not held_out.sets else "without-sets"
    return f"{kind}-{names}" if len(names) <= 60 else f"{kind}-{_digest(names)[:12]}"  # noqa: PLR2004  # a file's name


def _check_is_no_target(base: Path, held_out: HeldOut, options: RunOptions) -> None:
    targets = [options.out / name / "model" for name in (NLI_ONLY, variant_name(held_out))]
    if base.resolve() in [target.resolve() for target in targets]:
        raise ConfigError(f"base: {base}: this run would write there; name another folder in --out")


def _stages_of(base: Provenance | None) -> tuple[StageFacts, ...]:
    """What the base had seen is seen by all that starts from it."""
    return () if base is None else base.stages


def _stage(
    stage: Stage, recipe: Recipe, tables: tuple[SetTable, SetTable], point: _Point, options: RunOptions
) -> _Point:
    """Where a run stands after `stage`, which sees the first of `tables`; the tests of the second are kept out."""
    used, tests = tables
    key = _digest(point.key, stage.model_dump_json(), used.model_dump_json(), str(recipe.seed))
    data = _data_digest(used, tests, options.data)
    if _is_of_other_data(_folder(options, stage, key), data):
        key = _digest(key, data)
    folder = _folder(options, stage, key)
    folder.mkdir(parents=True, exist_ok=True)
    if data:
        (folder / DATA_FILE).write_text(data + "\n", encoding="utf-8")
    if not (folder / DONE_FILE).is_file():
        _learn(stage, recipe, tables, point, (folder, options))
    facts = StageFacts.read(folder / DONE_FILE)
    return _Point(folder / "model", key, (*point.stages, facts))


def _folder(options: RunOptions, stage: Stage, key: str) -> Path:
    return options.out / "work" / f"{stage.name}-{key[:12]}"


def _data_digest(used: SetTable, tests: SetTable, data: Path) -> str:
    """A name for all that the training files of `used` hold, and in a second line one for the tests kept out of them.

    Blank where a training file is missing; without the second line where there are only pairs: no test is kept out.
    """
    files = [data / each.train for each in (*used.classification, *used.nli) if each.train]
    if not all(file.is_file() for file in files):
        return ""
    kept_out = [data / each.test for each in tests.classification if each.test] if used.classification else []
    found = sorted({file_sha256(file) for file in kept_out if file.is_file()})
    return "\n".join([_digest(*map(file_sha256, files)), *([_digest(*found)] if found else [])])


def _is_of_other_data(folder: Path, data: str) -> bool:
    """Whether a stage was trained there on files that have changed since; an older one does not say all or any."""
    file = folder / DATA_FILE
    before = file.read_text(encoding="utf-8").split() if file.is_file() and data else []
    return any(then != now for then, now in zip(before, data.split(), strict=False))


def _learn(
    stage: Stage,
    recipe: Recipe,
    tables: tuple[SetTable, SetTable],
    point: _Point,
    where: tuple[Path, RunOptions],
) -> None:
    folder, options = where
    journal = Journal(folder / JOURNAL_FILE)
    source = Source.of(tables[1], options.data)
    facts = stage_data(stage, tables[0], source, recipe.seed, options.reading(f"{stage.name}: files read"))
    if not (folder / CHECKPOINT_FILE).is_file():
        journal.cut(0)  # of a process that was killed before its first checkpoint
        journal.write("stage.started", stage=stage.name, sets=[dataclasses.asdict(use) for use in facts.uses])
    if not is_stored(folder / "pairs"):
        pairs = counted(facts, options.reading(f"{stage.name}: pairs made"))
        write_store(folder / "pairs", pairs, PairJoiner(point.folder / TOKENIZER_FILE, recipe.max_pair_tokens))
    store = open_store(folder / "pairs")
    trainable = load_trainable(point.folder, recipe.seed)
    loop = Loop(
        folder,
        journal,
        stage.name,
        options.clock,
        seed=recipe.seed,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        progress=options.progress(stage.name),
    )
    learnt = finetune(trainable, store, stage.optimisation, loop)
    save_trained(trainable, point.folder, folder / "model")
    journal.write("stage.finished", stage=stage.name, **dataclasses.asdict(learnt))
    _finish(folder, StageFacts(stage.name, facts.uses, learnt, store.dropped))


def _finish(folder: Path, facts: StageFacts) -> None:
    """Say that a stage is done, and only then throw away what it needed to get there."""
    facts.write(folder / DONE_FILE)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / "pairs")


def _publish(point: _Point, provenance: Provenance, options: RunOptions) -> Path:
    target = options.out / provenance.variant / "model"
    if target.is_dir():
        shutil.rmtree(target)
    shutil.copytree(point.folder, target)
    write_provenance(target, provenance)
    write_card(target, provenance)
    return target


def _saw_classes(stages: tuple[StageFacts, ...]) -> bool:
    return any(use.kind == "classification" for stage in stages for use in stage.uses)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
