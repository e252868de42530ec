"""What `worker engine` prints."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from worker.engines.base import Engine
from worker.engines.build import BATCH_BOUNDS, LOGIT_BOUNDS, GateReport
from worker.engines.load import LoadedModel
from worker.engines.trt_order import PlanForm
from worker.types import JsonValue


class BuildPrinter:
    """Progress of a build on a terminal; silent in a pipe."""

    def __init__(self, *, is_quiet: bool) -> None:
        is_shown = not is_quiet and sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, disable=not is_shown, transient=True)
        self._task: TaskID | None = None
        self._phase = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, phase: str, done: float) -> None:
        """Show a phase, and which part of it is done."""
        if self._task is None or phase != self._phase:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._phase = self._progress.add_task(phase, total=1.0), phase
        self._progress.update(self._task, completed=done)


def as_object(loaded: LoadedModel) -> dict[str, JsonValue]:
    """An engine and what the gate measured of it, for programs."""
    stamp = loaded.engine.info.stamp
    return {
        "why": loaded.why,
        "model": stamp.name,
        "digest": stamp.digest,
        "engine": stamp.engine,
        "precision": stamp.precision,
        "max_pair_tokens": loaded.engine.info.max_pair_tokens,
        "token_budget": loaded.engine.info.token_budget,
        "details": dict(loaded.engine.info.details),
        "is_verified": loaded.is_verified,
        "gate": None if loaded.gate is None else dict(asdict(loaded.gate).items()),
    }


def as_text(loaded: LoadedModel) -> str:
    """An engine and what the gate measured of it, for people."""
    info = loaded.engine.info
    details = ", ".join(f"{name} {value}" for name, value in info.details.items())
    lines = [
        f"{info.stamp.name}  {info.stamp.digest[:19]}…",
        f"  {loaded.why}",
        f"  {details}",
        f"  pairs of up to {info.max_pair_tokens} tokens, batches of up to {info.token_budget}",
    ]
    return "\n".join([*lines, *_gate_lines(loaded.engine, loaded.gate)])


def plan_as_text(plan: Mapping[str, JsonValue]) -> str:
    """A plan, for people."""
    gate = plan.get("gate")
    gpu = plan.get("gpu")
    where = gpu[0] if isinstance(gpu, list) and gpu else "?"
    lines = [
        f"{plan.get('plan')}  {plan.get('precision')}, {plan.get('layout')}, TensorRT {plan.get('tensorrt')}, {where}",
        f"  model {str(plan.get('model'))[:19]}…, built in {plan.get('build_seconds', '?')} s",
        f"  layers with fused attention: {plan.get('fused_attention', '?')}",
    ]
    if isinstance(gate, dict):
        lines.append(
            f"  gate: {'passed' if gate.get('passed') else 'NOT passed: ' + str(gate.get('reason'))}; "
            f"logits within {_number(gate.get('largest_logit_error'))} of float32, "
            f"{gate.get('label_flips')} labels changed, "
            f"batch dependence {_number(gate.get('batch_dependence'))}"
        )
    else:
        lines.append("  gate: not yet measured; not used before it is")
    return "\n".join(lines)


def form_as_text(form: PlanForm) -> str:
    """What a worker's configuration has to say to find a plan of this form, as a line more; `""` for the usual one."""
    usual, names = asdict(PlanForm()), {"token_budget": "max_tokens"}
    said = [
        f"{names.get(name, name)}: {list(value) if isinstance(value, tuple) else value}"
        for name, value in asdict(form).items()
        if value != usual[name]
    ]
    return f"\n  a worker uses it with  tensorrt: {{{', '.join(said)}}}" if said else ""


def _gate_lines(engine: Engine, gate: GateReport | None) -> list[str]:
    if gate is None:
        return ["  gate: none, its scores mean nothing"]
    precision = engine.info.stamp.precision
    bound = LOGIT_BOUNDS.get(precision)
    allowed = "labels decide" if bound is None else f"{bound:g} allowed for logits up to 10"
    return [
        f"  gate: {'passed' if gate.passed else 'NOT passed: ' + gate.reason}, {gate.pairs} golden pairs",
        f"    largest logit error {gate.largest_logit_error:.2g} ({allowed}), mean {gate.mean_logit_error:.2g}",
        f"    labels changed where float32 is sure: {gate.label_flips}",
        f"    largest change between batches {gate.batch_dependence:.2g} ({BATCH_BOUNDS[precision]:g} likewise)",
    ]


def _number(value: JsonValue) -> str:
    return f"{value:.2g}" if isinstance(value, float | int) else "?"
