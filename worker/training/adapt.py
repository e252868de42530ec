"""Fine-tuning a model on a few examples of one label schema, and what it becomes."""

import dataclasses
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.clock import Clock
from worker.engines.artifact import TOKENIZER_FILE
from worker.labels.schema import LabelSchema
from worker.training.card import Provenance, StageFacts, read_provenance, write_card, write_provenance
from worker.training.data import Row
from worker.training.finetune import Loop, Progress, finetune
from worker.training.journal import Journal
from worker.training.pairs import classification_pairs, pairs_available
from worker.training.prepare import HeldOut, SetUse
from worker.training.recipe import ClassificationPart, Optimisation
from worker.training.store import PairJoiner, PairStore, write_store
from worker.training.verbalize import Verbalized
from worker.training.weights import load_trainable, save_trained

_STAGE: Final = "examples"
_BATCH: Final = 16
_FEWEST_STEPS: Final = 150
"""With eight examples of a few classes an epoch is a handful of steps; so many are needed for the loss to settle."""
_MOST_EPOCHS: Final = 20
_MOST_NEGATIVES: Final = 4


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What to learn from, and how."""

    base: Path
    schema: LabelSchema
    max_pair_tokens: int = 256
    learning_rate: float = 5e-5
    seed: int = 42
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    command: str = "worker finetune"
    base_name: str = ""
    """What the card calls the base, where the base has no card of its own."""


def adapt(wanted: Adaptation, rows: Sequence[Row], out: Path, clock: Clock, progress: Progress) -> Path:
    """The model folder `out/model`: the base after learning from `rows`, with a card. Blocks for minutes.

    Raises:
        EngineError: torch is missing, or the base cannot be trained.
    """
    classes = [Verbalized(node.label.name, node.hypotheses, ()) for node in wanted.schema.tree.nodes]
    store = _stored(wanted, rows, classes, out / "pairs")
    trainable = load_trainable(wanted.base, wanted.seed)
    journal = Journal(out / "log.jsonl")
    journal.cut(0)
    loop = Loop(
        out,
        journal,
        _STAGE,
        clock,
        seed=wanted.seed,
        device=wanted.device,
        precision=wanted.precision,
        threads=wanted.threads,
        progress=progress,
        has_checkpoints=False,
    )
    learnt = finetune(trainable, store, _optimisation(wanted, len(store)), loop)
    journal.write("stage.finished", stage=_STAGE, **dataclasses.asdict(learnt))
    shutil.rmtree(out / "pairs")
    model = out / "model"
    if model.is_dir():
        shutil.rmtree(model)
    save_trained(trainable, wanted.base, model)
    facts = StageFacts(_STAGE, (_use(wanted.schema, len(rows), len(store)),), learnt, store.dropped)
    _describe(model, wanted, facts, out.name)
    return model


def _stored(wanted: Adaptation, rows: Sequence[Row], classes: Sequence[Verbalized], folder: Path) -> PairStore:
    part = ClassificationPart(
        max_per_class=None,
        max_per_set=None,
        negatives=float(min(_MOST_NEGATIVES, max(1, len(classes) - 1))),
        hard_negatives=0.5,
    )
    pairs = classification_pairs(rows, classes, part, pairs_available(len(rows), part), wanted.seed)
    return write_store(folder, pairs, PairJoiner(wanted.base / TOKENIZER_FILE, wanted.max_pair_tokens))


def _optimisation(wanted: Adaptation, pairs: int) -> Optimisation:
    epochs = min(_MOST_EPOCHS, max(1, math.ceil(_FEWEST_STEPS * _BATCH / max(1, pairs))))
    return Optimisation(learning_rate=wanted.learning_rate, epochs=epochs, batch_pairs=_BATCH, warmup=0.1)


def _use(schema: LabelSchema, rows: int, pairs: int) -> SetUse:
    name, licence = f"examples of {schema.name}", "the user's own"
    return SetUse(name, "classification", schema.name, licence, "unchecked", rows, len(schema.tree.nodes), pairs)


def _describe(model: Path, wanted: Adaptation, facts: StageFacts, name: str) -> None:
    before = read_provenance(wanted.base)
    stages = (*(before.stages if before is not None else ()), facts)
    base = (before.base if before is not None else "") or wanted.base_name
    provenance = Provenance(f"{wanted.schema.name}-{name}", "fine-tuned", HeldOut(), stages, "", wanted.command, base)
    write_provenance(model, provenance)
    write_card(model, provenance)
