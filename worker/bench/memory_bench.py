"""`worker bench memory`: whether a worker that always meets new texts comes to rest at a size."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from worker.bench.arena import Arena, Route, Run, open_arena
from worker.bench.engine_bench import Say
from worker.bench.figures import report_of
from worker.bench.first_look import LEAST_MESSAGES
from worker.bench.machine import Usage, describe_machine, watched
from worker.bench.subject import Subject, routed, running_worker
from worker.bench.workloads import Recipe, label_names, workload
from worker.engines.load import EngineChoice
from worker.kafka.embedded_jars import KAFKA_VERSION
from worker.pipeline.score_cache import ENTRY_BYTES
from worker.pipeline.words import PIECES_KEPT
from worker.settings import Batching

SHARE_OF_SATURATION: Final = 0.3
"""The rate where none is asked for."""
_SAMPLE_SECONDS: Final = 10.0
_LEAST_SAMPLES: Final = 12
_PORTION_SECONDS: Final = 60.0
"""Texts are made for so long ahead."""
NEW_WORDS: Final = 8
"""In each text: at six messages a second the worker's pieces of texts are at their bound after 23 minutes."""
_FIRST_WORD: Final = 10_000
_FULL_BY: Final = 0.25
"""The part of the time after which the kept scores are at their bound: the slope is of the second half."""
_LEAST_FITTED: Final = 2
_ROWS: Final = 12
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemoryBench:
    """What to measure."""

    choice: EngineChoice
    recipe: Recipe
    minutes: float = 60.0
    rate: float | None = None
    """Messages a second; None: a share of the saturation."""

    def quickly(self) -> "MemoryBench":
        """The same in under two minutes."""
        return replace(self, minutes=min(self.minutes, 1.0))

    @property
    def sample_seconds(self) -> float:
        """How often the size is looked at."""
        return min(_SAMPLE_SECONDS, 60 * self.minutes / _LEAST_SAMPLES)


class FreshTexts:
    """Texts none of which came before: each begins with `NEW_WORDS` numbers that were in no other one.

    Numbers are words to the worker's tokenizer, so that what it keeps of words it met fills up as it does with the
    names and numbers of real texts.
    """

    def __init__(self, recipe: Recipe) -> None:
        """With the lengths of `recipe`, and the numbers besides."""
        self._recipe = recipe
        self._words = itertools.count(_FIRST_WORD)
        self._portions = 0
        self.taken = 0
        """How many there were."""

    def take(self, count: int) -> list[str]:
        """The next ones."""
        made = workload(replace(self._recipe, texts=count, repeated=0.0, seed=self._portions))
        self._portions += 1
        self.taken += count
        return [" ".join([*map(str, itertools.islice(self._words, NEW_WORDS)), text]) for text in made.texts]


def kept_scores_bytes(messages: int, labels: int) -> int:
    """The bound for kept scores: the worker's own, or less where so many messages would not fill that early enough."""
    pairs = max(2, int(_FULL_BY * messages) * labels)
    return min(Batching().cache_bytes, pairs * ENTRY_BYTES)


def run_memory_bench(bench: MemoryBench, say: Say) -> dict[str, object]:
    """Measure everything that `bench` names; the report is one JSON object. Blocks for as long as was asked.

    Raises:
        WorkerError: the broker or the worker cannot be used, or does not keep up.
    """
    machine = describe_machine()
    labels = label_names(bench.recipe.labels)
    with open_arena(say) as arena:
        saturation = None if bench.rate else _saturation(bench, arena, labels, say)
        rate = bench.rate or SHARE_OF_SATURATION * (saturation or 1.0)
        messages = max(1, round(60 * bench.minutes * rate))
        bound = kept_scores_bytes(messages, len(labels))
        route, bindings = routed("steady", labels)
        arena.add(route)
        say(f"{messages} messages, {rate:.3g} a second; starting the worker")
        with running_worker(arena, bindings, bench.choice, batching={"cache_bytes": bound}) as subject:
            texts = FreshTexts(bench.recipe)
            with watched(subject.pid, bench.sample_seconds) as usage:
                runs = _paced(arena, route, (subject, rate, messages), texts, say)
            cached = subject.metrics().get("worker_score_cache_bytes", 0.0)
    return report_of(
        {
            "bench": "memory",
            "machine": machine,
            "broker": f"Apache Kafka {KAFKA_VERSION}, on the same machine",
            "choice": asdict(bench.choice),
            "workload": {"kind": bench.recipe.kind, "labels": len(labels), "new_words_per_text": NEW_WORDS},
            "saturation_messages_per_second": saturation,
            "rate": rate,
            "messages_per_second": sum(run.messages for run in runs) / sum(run.seconds for run in runs),
            "distinct_texts": texts.taken,
            "score_cache_mib": cached / _MIB,
            "score_cache_bound_mib": bound / _MIB,
            "score_cache_bound_unless_set_mib": Batching().cache_bytes / _MIB,
            "pieces_at_bound_after_minutes": PIECES_KEPT / (NEW_WORDS * rate * 60),
            **sizes_of(usage),
        }
    )


def sizes_of(usage: Usage) -> dict[str, object]:
    """The size of the worker over the time: how it began and ended, and how fast it grew in the second half."""
    sizes = [size for _, size in usage.samples]
    return {
        "minutes": usage.samples[-1][0] / 60 if usage.samples else None,
        "rss_first_mib": sizes[0] if sizes else None,
        "rss_last_mib": sizes[-1] if sizes else None,
        "rss_max_mib": max(sizes, default=None),
        "rss_slope_mib_per_hour": slope_per_hour(usage.samples),
        "samples": [{"minute": seconds / 60, "rss_mib": size} for seconds, size in usage.samples],
    }


def slope_per_hour(samples: Sequence[tuple[float, float]]) -> float | None:
    """The slope of the line of least squares through the samples of the second half; None of less than two."""
    if not samples:
        return None
    middle = (samples[0][0] + samples[-1][0]) / 2
    hours, sizes = zip(*((seconds / 3600, size) for seconds, size in samples if seconds >= middle), strict=True)
    return statistics.linear_regression(hours, sizes).slope if len(hours) >= _LEAST_FITTED else None


def shown(report: Mapping[str, object]) -> dict[str, object]:
    """The report with a dozen of its samples, the first and the last one among them: what fits on a screen."""
    samples = report["samples"]
    if not isinstance(samples, list) or len(samples) <= _ROWS:
        return dict(report)
    places = [round(number * (len(samples) - 1) / (_ROWS - 1)) for number in range(_ROWS)]
    return {**report, "samples": [samples[place] for place in places]}


def _saturation(bench: MemoryBench, arena: Arena, labels: Sequence[str], say: Say) -> float:
    """Of a worker of its own: the one whose size is measured starts with nothing behind it."""
    say("looking how fast it is")
    route, bindings = routed("at-once", labels)
    arena.add(route)
    with running_worker(arena, bindings, bench.choice) as subject:
        texts = FreshTexts(bench.recipe)
        arena.saturate(route, texts.take(LEAST_MESSAGES), subject.check)  # its first messages are its slowest
        return arena.saturate(route, texts.take(LEAST_MESSAGES), subject.check).messages_per_second


def _paced(arena: Arena, route: Route, load: tuple[Subject, float, int], texts: FreshTexts, say: Say) -> list[Run]:
    subject, rate, messages = load
    portion = max(1, round(rate * _PORTION_SECONDS))
    runs: list[Run] = []
    while texts.taken < messages:
        runs.append(arena.pace(route, texts.take(min(portion, messages - texts.taken)), rate, subject.check))
        say(f"{texts.taken} of {messages} messages")
    return runs
