"""What a text costs as labels are added: an NLI model, a pass per label, beside one-pass models.

`python -m worker.bench.labels`. The one-pass model has random weights and an encoder of the bundled model's shape; the
same weights run in GLiClass' own pipeline and in our engine, in float32 both. There is no broker: texts are tokenised,
batched and scored. Texts are short, so that 32 labels and a text fit the encoder's 512 positions.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from worker.bench.dequantised import write_float32_copy
from worker.bench.figures import alternating, median
from worker.bench.peers import GLICLASS, Peer, running_peer
from worker.bench.tokenised import schema_of
from worker.bench.workloads import Recipe, Workload, workload
from worker.engines.artifact import open_folder
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.engines.source import BUNDLED_FOLDER
from worker.label_sets import pair_tokenizer
from worker.pipeline.batching import Batcher
from worker.pipeline.planning import plan_pairs
from worker.types import Request, TokenizedPairs

COUNTS: Final = (1, 2, 4, 8, 16, 32)
NLI, ONE_PASS, THEIRS = "nli", "gliclass_engine", "gliclass_library"
_MOST_PAIRS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds a text takes, medians over the rounds."""

    labels: int
    nli: float
    gliclass_engine: float
    gliclass_library: float


def measure(counts: Sequence[int], texts: int, rounds: int, threads: int) -> list[Cost]:
    """Every count of labels with every contestant, who runs first changing from round to round. Blocks for minutes.

    Raises:
        ConfigError: uv or the folder benchmarks is not there.
        EngineError: torch is not installed, or an engine does not load.
        FatalError: GLiClass' pipeline does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        source, saved = write_float32_copy(open_folder(BUNDLED_FOLDER), home / "bert"), home / "gliclass"
        settings = {"model": str(source), "threads": threads, "save": str(saved)}
        with running_peer("gliclass", GLICLASS, settings, home) as peer:
            ours = {
                NLI: load_engine(EngineChoice(threads=threads)),
                ONE_PASS: load_engine(EngineChoice(str(saved), "gliclass", "float32", threads=threads)),
            }
            try:
                return [_cost(workload(Recipe("short", texts, count)), rounds, ours, peer) for count in counts]
            finally:
                for model in ours.values():
                    model.engine.close()


def _cost(made: Workload, rounds: int, ours: dict[str, LoadedModel], peer: Peer) -> Cost:
    runs: dict[str, Callable[[], float]] = {
        NLI: lambda: _seconds(ours[NLI], made),
        ONE_PASS: lambda: _seconds(ours[ONE_PASS], made),
        THEIRS: lambda: _their_seconds(peer, made),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _, name in alternating(tuple(runs), rounds):
        seconds[name].append(runs[name]())
    of_a_text = {name: 1000 * median(each) / len(made.texts) for name, each in seconds.items()}
    return Cost(len(made.labels), **of_a_text)


def _seconds(model: LoadedModel, made: Workload) -> float:
    """How long our tokenizer, queue and engine take for the texts, labels tokenised and one text scored before."""
    tokenizer, schema = pair_tokenizer(model), schema_of("bench", made.labels)
    tokenizer.prepare(schema)
    plans = [plan_pairs(Request(str(number), text), schema, _MOST_PAIRS) for number, text in enumerate(made.texts)]
    for wanted in (plans[:1], plans):
        started = time.perf_counter()
        batcher = Batcher(model.engine.info.token_budget)
        for number, pairs in enumerate(tokenizer.tokenize(wanted)):
            if not isinstance(pairs, TokenizedPairs):
                raise pairs
            batcher.add(number, pairs)
        while (batch := batcher.pop()) is not None:
            model.engine.score(batch)
    return time.perf_counter() - started


def _their_seconds(peer: Peer, made: Workload) -> float:
    peer.tell({"texts": made.texts, "labels": made.labels})
    return float(peer.expect("done")["seconds"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line and print a table."""
    parser = argparse.ArgumentParser(prog="python -m worker.bench.labels", description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--texts", type=int, default=16, help="texts of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args(arguments)
    found = measure(asked.labels, asked.texts, asked.rounds, asked.threads)
    if asked.json:
        lines = [json.dumps([asdict(cost) for cost in found])]
    else:
        lines = [f"| labels | {NLI} | {ONE_PASS} | {THEIRS} |", "|---|---|---|---|"]
        lines += [
            f"| {cost.labels} | {cost.nli:.1f} | {cost.gliclass_engine:.1f} | {cost.gliclass_library:.1f} |"
            for cost in found
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
