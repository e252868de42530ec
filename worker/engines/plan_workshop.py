"""Building a plan on demand: down the ladder of precisions until one agrees with float32."""

from dataclasses import asdict, dataclass
from pathlib import Path

from worker.engines.artifact import ModelFolder
from worker.engines.build import GateReport
from worker.engines.golden import Golden, golden_texts, read_golden, score_alone
from worker.engines.plan_gate import as_notes, measure_edges, verify_plan
from worker.engines.plans import StoredPlan
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.source import fetch_model
from worker.engines.trt_builder import Progress
from worker.engines.trt_open import open_builder, open_plan, warn_of_unfused
from worker.engines.trt_order import PlanForm, check_order, check_version
from worker.engines.verdicts import default_cache_dir
from worker.types import JsonValue


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants built."""

    model: str
    precision: str
    form: PlanForm
    seconds: float
    again: bool
    cache_dir: Path | None


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan, and what the gate measured of it."""

    stored: StoredPlan
    report: GateReport

    def as_object(self) -> dict[str, JsonValue]:
        """For programs: facts and notes in one."""
        return {"plan": self.stored.folder.name, **asdict(self.stored)["facts"], **self.stored.notes}


def build_checked(wish: Wish, progress: Progress) -> CheckedPlan:
    """The first plan of the ladder that passes the gate, or the last that did not. Blocks for minutes.

    Raises:
        ConfigError: a wish that makes no sense, or that this version of the library cannot fulfil.
        EngineError: nothing can be built here.
    """
    folder = fetch_model(wish.model)
    orders = [wish.form.order(precision) for precision in wish.form.precisions(folder, wish.precision)]
    check_order(orders[0], folder)
    builder = open_builder(wish.cache_dir or default_cache_dir(), progress, wish.seconds)
    check_version(orders[0], builder.tensorrt)
    golden = float32_golden(folder)
    checked: CheckedPlan | None = None
    for order in orders:
        stored = builder.build(folder, order, again=wish.again)
        warn_of_unfused(folder, stored)
        progress("checking against float32", 0.0)
        engine = open_plan(folder, stored)
        try:
            report = verify_plan(engine, folder, golden, measure_edges(engine, folder))
        finally:
            engine.close()
        checked = CheckedPlan(builder.store.amend(stored, as_notes(report)), report)
        if report.passed:
            break
    if checked is None:
        raise RuntimeError("This is a bug. There is no precision to build.")
    return checked


def float32_golden(folder: ModelFolder) -> Golden:
    """The folder's golden pairs, or the golden texts with the logits of the float32 model on the CPU."""
    stored = read_golden(folder)
    if stored is not None:
        return stored
    engine = PyTorchEngine(folder, PyTorchOptions(device="cpu"))
    try:
        return Golden(golden_texts(), score_alone(engine, folder, golden_texts()))
    finally:
        engine.close()
