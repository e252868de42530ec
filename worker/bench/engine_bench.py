"""`worker bench engine`: what the engine does by itself, and what the machine would let it do."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from worker.bench.ceiling import ModelShape, measured_ceiling, model_shape
from worker.bench.figures import median, report_of
from worker.bench.machine import describe_machine
from worker.bench.tokenised import PairSet, padding_ratio, pair_set, schema_of
from worker.bench.workloads import KINDS, Kind, Recipe, workload
from worker.engine_line import Begun, EngineLine
from worker.engines.artifact import open_folder
from worker.engines.base import Engine
from worker.engines.layout import filler_batch
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.engines.ov import OpenVinoOptions
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Batch

_TOKEN_ID: Final = 2000
"""Any word: what it is does not change what it costs."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EngineBench:
    """What to measure."""

    choice: EngineChoice
    recipe: Recipe
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    pairs: tuple[int, ...] = (1, 8, 32, 128)
    budgets: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    kinds: tuple[Kind, ...] = KINDS
    seconds: float = 2.0
    """How long one cell of the grid is repeated."""
    rounds: int = 3
    """How often each workload is scored with each budget."""

    @classmethod
    def quick(cls, choice: EngineChoice, recipe: Recipe) -> "EngineBench":
        """Less of everything: a minute or so."""
        return cls(choice, recipe, (32, 128, 512), (1, 8, 32), (1024, 2048), ("mixed",), seconds=0.5, rounds=2)


def run_engine_bench(bench: EngineBench, say: Say) -> dict[str, object]:
    """Measure everything that `bench` names; the report is one JSON object. Blocks for minutes.

    Raises:
        WorkerError: the model cannot be used.
    """
    machine = describe_machine()
    say("loading the model")
    model = load_engine(bench.choice)
    try:
        engine = model.engine
        engine.warm_up()
        shape = model_shape(open_folder(model.model_dir))
        say("measuring matrix products")
        ceiling = None if engine.info.stamp.engine != "openvino" else measured_ceiling(_options(bench, engine))
        report: dict[str, object] = {
            "bench": "engine",
            "machine": machine,
            "engine": {**asdict(engine.info.stamp), **engine.info.details, "token_budget": engine.info.token_budget},
            "ceiling": ceiling,
            "grid": _grid(bench, engine, shape, ceiling, say),
            "workloads": [row for kind in bench.kinds for row in _budgets(bench, model, kind, (shape, ceiling), say)],
        }
        return report_of(report)
    finally:
        model.engine.close()


def seconds_of(engine: Engine, batches: Sequence[Batch]) -> float:
    """How long the engine takes for all of `batches`, each begun before the last one is done if it can do so."""
    line, running = EngineLine(engine), deque[Begun]()
    began = time.perf_counter()
    for batch in batches:
        running.append(line.begin(batch))
        if len(running) > 1:
            running.popleft().result()
    while running:
        running.popleft().result()
    return time.perf_counter() - began


def cost_of(engine: Engine, batches: Sequence[Batch]) -> tuple[float, float]:
    """Seconds on the clock and of CPU that the engine takes for all of `batches`.

    The second says the same on a machine that others use too.
    """
    before = time.process_time()
    seconds = seconds_of(engine, batches)
    return seconds, time.process_time() - before


def pairs_of(model: LoadedModel, recipe: Recipe) -> PairSet:
    """The pairs of a workload, tokenised for the model."""
    made = workload(recipe)
    tokenizer = PairTokenizer(model.tokenizer_file, model.engine.info.max_pair_tokens)
    return pair_set(tokenizer, made.texts, schema_of("bench", made.labels))


def _options(bench: EngineBench, engine: Engine) -> OpenVinoOptions:
    return OpenVinoOptions(engine.info.stamp.precision, bench.choice.threads)


def _grid(
    bench: EngineBench, engine: Engine, shape: ModelShape | None, ceiling: dict[str, float] | None, say: Say
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for length in (each for each in bench.lengths if each <= engine.info.max_pair_tokens):
        say(f"pairs of {length} tokens")
        for pairs in bench.pairs:
            batch = filler_batch(pairs, length, _TOKEN_ID)
            engine.score(batch)
            per_batch = _repeated(engine, batch, bench.seconds)
            row: dict[str, object] = {
                "tokens_per_pair": length,
                "pairs_per_batch": pairs,
                "pairs_per_second": pairs / per_batch,
                "tokens_per_second": pairs * length / per_batch,
                "milliseconds_per_batch": 1000 * per_batch,
            }
            rows.append({**row, **_share(shape, ceiling, (batch,), per_batch)})
    return rows


def _repeated(engine: Engine, batch: Batch, seconds: float) -> float:
    """The median time of the batch, repeated for `seconds` and at least three times."""
    found: list[float] = []
    ends_at = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < ends_at:  # noqa: PLR2004  a median of three is the least
        found.append(seconds_of(engine, (batch,)))
    return median(found)


def _budgets(
    bench: EngineBench,
    model: LoadedModel,
    kind: Kind,
    bound: tuple[ModelShape | None, dict[str, float] | None],
    say: Say,
) -> list[dict[str, object]]:
    recipe = Recipe(kind, bench.recipe.texts, bench.recipe.labels, 0.0, bench.recipe.source, bench.recipe.seed)
    pairs = pairs_of(model, recipe)
    found: dict[int, list[tuple[float, float]]] = {budget: [] for budget in bench.budgets}
    cut = {budget: pairs.batches(budget) for budget in bench.budgets}
    for number in range(bench.rounds):
        say(f"workload {kind}, round {number + 1} of {bench.rounds}")
        for budget, batches in cut.items():
            found[budget].append(cost_of(model.engine, batches))
    return [_row(recipe, pairs, (budget, batches), found[budget], bound) for budget, batches in cut.items()]


def _row(
    recipe: Recipe,
    pairs: PairSet,
    cut: tuple[int, Sequence[Batch]],
    costs: Sequence[tuple[float, float]],
    bound: tuple[ModelShape | None, dict[str, float] | None],
) -> dict[str, object]:
    (budget, batches), count = cut, len(pairs.singles)
    seconds, cpu_seconds = median([each for each, _ in costs]), median([each for _, each in costs])
    return {
        "workload": recipe.kind,
        "labels": recipe.labels,
        "pairs": count,
        "mean_tokens": pairs.tokens / count,
        "token_budget": budget,
        "padding_ratio": padding_ratio(batches),
        "pairs_per_second": count / seconds,
        "pairs_per_cpu_second": count / max(cpu_seconds, 1e-9),
        "tokens_per_second": pairs.tokens / seconds,
        "messages_per_second": count / recipe.labels / seconds,
        **_share(*bound, batches, seconds),
    }


def _share(
    shape: ModelShape | None, ceiling: dict[str, float] | None, batches: Sequence[Batch], seconds: float
) -> dict[str, object]:
    """How much of the ceiling the operations of the pairs, without padding, make up."""
    if shape is None or ceiling is None:
        return {}
    tflops = sum(shape.flops(length) for batch in batches for length in batch.lengths.tolist()) / seconds / 1e12
    return {"tflops": tflops, "share_of_ceiling": tflops / ceiling["tflops"]}
