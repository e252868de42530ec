"""What the score cache saves where texts come again: the worker's path from texts to scores, with it and without.

`python -m worker.bench.repeats --texts FOLDER_OF_TEST_SETS --repeated 0.3`. Every round has texts of its own, and a
cache that is empty at its start; who runs first changes from round to round. There is no broker: what is measured is
the engine's work.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.bench.figures import alternating, median, median_ratio
from worker.bench.tokenised import schema_of
from worker.bench.workloads import Recipe, workload
from worker.clock import SystemClock
from worker.engine_retry import RetryingScorer, ScorerParts
from worker.engines.base import Engine
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.flow import BatchFailed, BatchScored
from worker.label_sets import pair_tokenizer
from worker.labels.schema import LabelSchema
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.pipeline.batching import Batcher
from worker.pipeline.planning import plan_pairs
from worker.pipeline.score_cache import ScoreCache
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Batching
from worker.types import Request, TokenizedPairs

QUEUED_BATCHES = 16
"""As in the running worker: so many batches' worth of tokens wait for the engine."""
WITH, WITHOUT = "with", "without"


@dataclass(frozen=True, slots=True)
class Found:
    """Medians over the rounds."""

    rounds: int
    texts: int
    """Per round."""
    labels: int
    repeated: float
    speed_ratio: float
    """Seconds without the cache / seconds with it, of the same round."""
    messages_per_second: float
    """With the cache."""
    cached_share: float
    """Pairs whose scores came from the cache."""


class Contest:
    """One model's scorer, run over texts with and without a cache."""

    def __init__(self, model: LoadedModel, schema: LabelSchema) -> None:
        self._engine: Engine = model.engine
        self._tokenizer: PairTokenizer = pair_tokenizer(model)
        self._tokenizer.prepare(schema)
        self._schema = schema

    def seconds(self, texts: Sequence[str], cache: ScoreCache | None) -> tuple[float, float]:
        """How long the texts take, and the share of pairs that were known."""
        cached = total = 0

        def note(event: BatchScored | BatchFailed) -> None:
            nonlocal cached, total
            total += event.batch.asked
            cached += event.batch.asked if isinstance(event, BatchScored) and event.is_cached else 0

        scorer = self._scorer(note, cache)
        budget = self._engine.info.token_budget
        batcher = Batcher(budget)
        started = time.perf_counter()
        plans = [plan_pairs(Request(str(number), text), self._schema, 4096) for number, text in enumerate(texts)]
        for number, plan in enumerate(plans):
            [pairs] = self._tokenizer.tokenize([plan])
            if isinstance(pairs, TokenizedPairs):
                batcher.add(number, pairs)
            while batcher.tokens > QUEUED_BATCHES * budget and (batch := batcher.pop()) is not None:
                scorer.score(batch)
        while (batch := batcher.pop()) is not None:
            scorer.score(batch)
        return time.perf_counter() - started, cached / total

    def _scorer(self, note: Callable[[BatchScored | BatchFailed], None], cache: ScoreCache | None) -> RetryingScorer:
        clock = SystemClock()
        heartbeats = Heartbeats(clock)
        heartbeats.register("engine", 600.0)
        return RetryingScorer(
            ScorerParts(
                engine=self._engine,
                emit=note,
                wait_for_stop=lambda _seconds: True,
                metrics=Metrics(),
                heartbeats=heartbeats,
                readiness=Readiness(),
                clock=clock,
                retry_seconds=0.0,
                cache=cache,
            )
        )


def measure(recipe: Recipe, rounds: int, model_name: str = "bundled") -> Found:
    """Run all rounds. Blocks for a minute or more."""
    model = load_engine(EngineChoice(model_name))
    try:
        model.engine.warm_up()
        first = workload(recipe)
        contest = Contest(model, schema_of("bench", first.labels))
        contest.seconds(first.texts[:20], None)  # what is slow the first time is no part of the comparison
        seconds: dict[str, list[float]] = {WITH: [], WITHOUT: []}
        shares = []
        for number, name in alternating((WITH, WITHOUT), rounds):
            texts = workload(dataclasses.replace(recipe, seed=recipe.seed + number)).texts
            taken, share = contest.seconds(texts, ScoreCache(Batching().cache_bytes) if name == WITH else None)
            seconds[name].append(taken)
            shares += [share] if name == WITH else []
    finally:
        model.engine.close()
    return Found(
        rounds=rounds,
        texts=recipe.texts,
        labels=recipe.labels,
        repeated=recipe.repeated,
        speed_ratio=median_ratio(seconds[WITHOUT], seconds[WITH]),
        messages_per_second=recipe.texts / median(seconds[WITH]),
        cached_share=median(shares),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line and print it."""
    parser = argparse.ArgumentParser(prog="python -m worker.bench.repeats", description=__doc__)
    parser.add_argument("--texts", type=Path, default=None, help="file or folder of texts; made ones without it")
    parser.add_argument("--messages", type=int, default=300, help="texts of each round")
    parser.add_argument("--labels", type=int, default=8)
    parser.add_argument("--repeated", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args(arguments)
    recipe = Recipe("mixed", asked.messages, asked.labels, asked.repeated, asked.texts)
    found = dataclasses.asdict(measure(recipe, asked.rounds, asked.model))
    lines = [json.dumps(found)] if asked.json else [f"{name:22} {value}" for name, value in found.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
