"""The training loop: seeded, resumable to the bit on one machine, in bfloat16 where that is faster."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.clock import Clock
from worker.engines.ov_machine import usable_cores
from worker.errors import EngineError
from worker.training.journal import Journal
from worker.training.place import chosen_place
from worker.training.recipe import Optimisation
from worker.training.store import PairStore, length_grouped
from worker.training.weights import Trainable, need_torch, set_dropout

CHECKPOINT_FILE: Final = "checkpoint.pt"
LOG_EVERY_STEPS: Final = 10
CHECKPOINT_EVERY_STEPS: Final = 200
"""A multiple of the former, so that no line of the journal spans a checkpoint."""
_HELD_BACK: Final = 1_000
_HELD_BACK_SHARE: Final = 20
"""One pair of so many, at most, is held back to show that something is learnt."""

Progress = Callable[[int, int, float], None]
"""Told after every step: its number, how many there are, the loss."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Where and how a stage is trained."""

    folder: Path
    """Holds the checkpoint."""
    journal: Journal
    stage: str
    clock: Clock
    seed: int = 42
    device: str = "auto"
    precision: str = "auto"
    """`auto` (bfloat16 where the machine computes in it), `bfloat16` or `float32`."""
    threads: int | None = None
    has_checkpoints: bool = True
    """False: a run that is killed starts anew, and one that is asked for again too."""
    progress: Progress = field(default=lambda step, steps, loss: None)  # noqa: ARG005


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a stage came to."""

    steps: int
    pairs: int
    first_loss: float
    last_loss: float
    """Both are means over a tenth of the steps."""
    held_back: int
    held_back_accuracy: float | None
    """On pairs that no step saw; their texts may have been seen in other pairs. None where there are too few pairs."""
    majority: float | None
    """What always saying the more frequent class would score."""
    seconds: float


def finetune(trainable: Trainable, store: PairStore, how: Optimisation, loop: Loop) -> Learnt:
    """Train `trainable` in place on `store`; goes on from the checkpoint in `loop.folder` where there is one. Blocks.

    Raises:
        ConfigError: there is no such device or precision.
        EngineError: torch is missing, or the loss is no number any more.
    """
    return _Run(trainable, store, how, loop).run()


def rate_at(step: int, steps: int, how: Optimisation) -> float:
    """The learning rate of a step (from 0): up in a line over the warm-up, then down in a line to 0 at the end."""
    rising = math.ceil(steps * how.warmup)
    if step < rising:
        return how.learning_rate * (step + 1) / rising
    return how.learning_rate * (steps - step) / max(1, steps - rising)


class _Run:
    """One training, with what changes from step to step."""

    def __init__(self, trainable: Trainable, store: PairStore, how: Optimisation, loop: Loop) -> None:
        self._torch = need_torch()
        self._trainable, self._store, self._how, self._loop = trainable, store, how, loop
        # torch knows nothing of a container's share of the cores.
        self._torch.set_num_threads(loop.threads or min(self._torch.get_num_threads(), usable_cores()))
        place = chosen_place(self._torch, loop.device, loop.precision)
        self._device, self._has_autocast = place.device, place.has_autocast
        self._module = trainable.module.to(self._device).train()
        if self._device == "cpu":
            # The fused form's gradient takes twice the time of the plain one's there.
            self._module.set_attn_implementation("eager")
        if how.dropout is not None:
            set_dropout(self._module, how.dropout)
        decays = [weights for weights in self._module.parameters() if weights.ndim > 1]
        stays = [weights for weights in self._module.parameters() if weights.ndim <= 1]
        groups = [{"params": decays, "weight_decay": how.weight_decay}, {"params": stays, "weight_decay": 0.0}]
        self._optimizer = self._torch.optim.AdamW(groups, lr=how.learning_rate, fused=True)
        order = np.random.default_rng([loop.seed, 0]).permutation(len(store))
        back = min(_HELD_BACK, len(store) // _HELD_BACK_SHARE)
        self._held_back, self._rows = np.sort(order[:back]), np.sort(order[back:])
        per_epoch = math.ceil(len(self._rows) / how.batch_pairs)
        self._steps_per_epoch = math.ceil(per_epoch / how.accumulate)
        self._steps = self._steps_per_epoch * how.epochs
        self._losses: list[float] = []
        self._seconds_before = 0.0

    def run(self) -> Learnt:
        clock, began = self._loop.clock, self._loop.clock.monotonic()
        self._torch.manual_seed(self._loop.seed)
        done = self._resume()
        for epoch in range(done // self._steps_per_epoch if self._steps else 0, self._how.epochs):
            batches = self._batches(epoch)
            first = epoch * self._steps_per_epoch
            for number in range(max(0, done - first), self._steps_per_epoch):
                group = batches[number * self._how.accumulate : (number + 1) * self._how.accumulate]
                self._step(first + number, group)
                seconds = self._seconds_before + clock.monotonic() - began
                self._after_step(first + number + 1, seconds)
        seconds = self._seconds_before + clock.monotonic() - began
        return self._learnt(seconds)

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        lengths = self._store.lengths[self._rows]
        seed = int(np.random.default_rng([self._loop.seed, 1, epoch]).integers(2**63))
        return [self._rows[batch] for batch in length_grouped(lengths, self._how.batch_pairs, seed)]

    def _step(self, step: int, group: list[npt.NDArray[np.int64]]) -> None:
        for settings in self._optimizer.param_groups:
            settings["lr"] = rate_at(step, self._steps, self._how)
        pairs = sum(len(batch) for batch in group)
        total = 0.0
        for batch in group:
            loss = self._loss(batch) / pairs
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise EngineError(
                f"stage {self._loop.stage}: the loss is no number at step {step + 1}: "
                "take a lower learning_rate, or --precision float32"
            )
        self._torch.nn.utils.clip_grad_norm_(self._module.parameters(), self._how.max_gradient_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._losses.append(total)

    def _loss(self, batch: npt.NDArray[np.int64]) -> Any:  # noqa: ANN401  # a torch tensor
        logits = self._logits(batch)
        return self._torch.nn.functional.cross_entropy(
            logits, self._targets(batch), reduction="sum", label_smoothing=self._how.label_smoothing
        )

    def _logits(self, batch: npt.NDArray[np.int64]) -> Any:  # noqa: ANN401  # a torch tensor
        ids, mask, types = self._store.padded(batch, self._trainable.pad_token_id)
        feed = {"input_ids": ids, "attention_mask": mask}
        if self._trainable.has_type_ids:
            feed["token_type_ids"] = types
        tensors = {name: self._torch.from_numpy(values).to(self._device) for name, values in feed.items()}
        with self._torch.autocast(self._device, dtype=self._torch.bfloat16, enabled=self._has_autocast):
            return self._module(**tensors).logits.float()

    def _targets(self, batch: npt.NDArray[np.int64]) -> Any:  # noqa: ANN401  # a torch tensor
        is_true = self._store.is_entailment[batch]
        classes = np.where(is_true, self._trainable.entailment, 1 - self._trainable.entailment)
        return self._torch.from_numpy(classes.astype(np.int64)).to(self._device)

    def _after_step(self, done: int, seconds: float) -> None:
        self._loop.progress(done, self._steps, self._losses[-1])
        if done % LOG_EVERY_STEPS == 0 or done == self._steps:
            recent = self._losses[-(done % LOG_EVERY_STEPS or LOG_EVERY_STEPS) :]
            self._loop.journal.write(
                "stage.stepped",
                stage=self._loop.stage,
                step=done,
                steps=self._steps,
                loss=sum(recent) / len(recent),
                learning_rate=rate_at(done - 1, self._steps, self._how),
                pairs=min(done * self._how.batch_pairs * self._how.accumulate, len(self._rows) * self._how.epochs),
                seconds=round(seconds, 3),
            )
        if self._loop.has_checkpoints and (done % CHECKPOINT_EVERY_STEPS == 0 or done == self._steps):
            self._save(done, seconds)

    def _save(self, done: int, seconds: float) -> None:
        state = {
            "step": done,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._torch.get_rng_state(),
            "cuda_random": self._torch.cuda.get_rng_state() if self._device == "cuda" else None,
            "losses": list(self._losses),
            "seconds": seconds,
            "journal_bytes": self._loop.journal.size_bytes,
        }
        part = self._loop.folder / f"{CHECKPOINT_FILE}.part"
        self._torch.save(state, part)
        part.replace(self._loop.folder / CHECKPOINT_FILE)

    def _resume(self) -> int:
        """How many steps an earlier process did; everything is as it was after them."""
        file = self._loop.folder / CHECKPOINT_FILE
        if not self._loop.has_checkpoints or not file.is_file():
            return 0
        state = self._torch.load(file, map_location=self._device, weights_only=True)
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._torch.set_rng_state(state["random"].cpu())
        if state["cuda_random"] is not None and self._device == "cuda":
            self._torch.cuda.set_rng_state(state["cuda_random"].cpu())
        self._losses = list(state["losses"])
        self._seconds_before = float(state["seconds"])
        self._loop.journal.cut(int(state["journal_bytes"]))
        return int(state["step"])

    def _learnt(self, seconds: float) -> Learnt:
        tenth = max(1, len(self._losses) // 10)
        accuracy = majority = None
        if len(self._held_back):
            truth = self._store.is_entailment[self._held_back]
            accuracy = float((self._said(self._held_back) == truth).mean())
            majority = float(max(truth.mean(), 1.0 - truth.mean()))
        return Learnt(
            steps=self._steps,
            pairs=len(self._rows) * self._how.epochs,
            first_loss=float(np.mean(self._losses[:tenth])) if self._losses else math.nan,
            last_loss=float(np.mean(self._losses[-tenth:])) if self._losses else math.nan,
            held_back=len(self._held_back),
            held_back_accuracy=accuracy,
            majority=majority,
            seconds=seconds,
        )

    def _said(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether the model as it is now takes each pair for true."""
        self._module.eval()
        found = np.zeros(len(rows), np.bool_)
        with self._torch.inference_mode():
            for start in range(0, len(rows), self._how.batch_pairs):
                chosen = self._logits(rows[start : start + self._how.batch_pairs]).argmax(dim=1).cpu().numpy()
                found[start : start + len(chosen)] = chosen == self._trainable.entailment
        return found
