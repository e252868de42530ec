"""Ways to run the bundled model on a CPU beside ours, on the same tokenised pairs: how fast, and how they decide.

`python -m worker.bench.cpu_engines --data FOLDER_OF_TEST_SETS`. A test set is a file `<name>.test.jsonl.gz` of lines
`{"text": …, "label": …}`. What is not installed, or not possible on this CPU, is left out and the reason told; torch
and ONNX Runtime compute with the bundled weights as float32.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from worker.bench.agreement import SUFFIX, Case, compare, draw_cases, encode_cases, score_cases
from worker.bench.agreement import Options as Draw
from worker.bench.dequantised import write_float32_copy
from worker.bench.engine_bench import seconds_of
from worker.bench.figures import alternating, median, median_ratio, report_of
from worker.bench.machine import describe_machine
from worker.bench.onnx_runtime import PRECISIONS, OnnxRuntimeEngine
from worker.bench.tokenised import PairSet
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.base import Engine
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions
from worker.engines.ov_machine import usable_cores
from worker.engines.ov_precision import INT8
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import WorkerError
from worker.types import Float32Array

OURS: Final = "this worker"
REFERENCE: Final = "this worker, float32"
"""What the decisions of all others are compared with."""
GROUPS: Final = (32, 64, 128)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    data: Path
    texts: int = 400
    rounds: int = 3
    seed: int = 0
    threads: int | None = None
    """Of every contestant; None: every core this process may use."""
    model: Path = BUNDLED_FOLDER


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to run the model."""

    name: str
    load: Callable[[], Engine]
    """Raises WorkerError where this machine cannot do it."""


@dataclass(frozen=True, slots=True)
class Found:
    """How fast one way is, and how it decides next to `REFERENCE`; shares lie in [0, 1]."""

    name: str
    precision: str
    pairs_per_second: float
    """Of the median round."""
    ratio: float
    """Median over the rounds of (seconds of `OURS` / seconds of this one)."""
    same_all: float
    """Share of texts with the same top label."""
    same_sure: float
    """The same where the float32 margin is above `agreement.SURE_MARGIN`."""
    max_logit_error: float
    mean_logit_error: float


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run."""

    machine: Mapping[str, object]
    texts: int
    pairs: int
    rounds: int
    threads: int
    found: tuple[Found, ...]
    skipped: Mapping[str, str]
    """Who was left out, and why."""


def contestants(model: ModelFolder, scratch: Path, threads: int) -> list[Contestant]:
    """All ways, ours first; files that they need are written to `scratch`."""

    def ours(precision: str, group: int | None = None, rest: str | None = None) -> Engine:
        return OpenVinoEngine(model, OpenVinoOptions(precision, threads, group=group, rest=rest))

    def torch(precision: str) -> Engine:
        options = PyTorchOptions(precision, "cpu", threads, layout="transformers")
        return PyTorchEngine(_float32_copy(model, scratch), options)

    def onnx_runtime(precision: str) -> Engine:
        return OnnxRuntimeEngine(_float32_copy(model, scratch), scratch / "onnx", precision, threads)

    precisions = ("bfloat16", "float32")
    return [
        Contestant(OURS, partial(ours, "auto")),
        Contestant(REFERENCE, partial(ours, "float32")),
        *(
            Contestant(f"int8 in groups of {group}, else {rest}", partial(ours, INT8, group, rest))
            for rest in precisions
            for group in GROUPS
        ),
        *(Contestant(f"torch, {precision}", partial(torch, precision)) for precision in precisions),
        *(Contestant(f"ONNX Runtime, {precision}", partial(onnx_runtime, precision)) for precision in PRECISIONS),
    ]


def load_all(wanted: Sequence[Contestant], until: ExitStack) -> tuple[dict[str, Engine], dict[str, str]]:
    """Those that this machine can run, closed with `until`, and of the others the reason.

    Raises:
        WorkerError: `OURS` or `REFERENCE` is among the others.
    """
    engines: dict[str, Engine] = {}
    skipped: dict[str, str] = {}
    for each in wanted:
        try:
            engines[each.name] = each.load()
        except WorkerError as error:
            if each.name in {OURS, REFERENCE}:
                raise
            skipped[each.name] = str(error)
        else:
            until.callback(engines[each.name].close)
    return engines, skipped


def measure(options: Options, say: Say) -> Report:
    """Score the same drawn texts with everybody, who is first changing from round to round. Blocks for minutes.

    Raises:
        FileNotFoundError: there is no test set.
        WorkerError: the model cannot be used.
    """
    draw = Draw(texts=options.texts, seed=options.seed)
    machine, cases = describe_machine(), draw_cases(options.data, draw)
    model, threads = open_folder(options.model), options.threads or usable_cores()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as until:
        say("loading")
        engines, skipped = load_all(contestants(model, Path(scratch), threads), until)
        logits: dict[str, list[Float32Array]] = {}
        for name, engine in engines.items():
            say(f"decisions of {name}")
            # What is slow the first time is so here: the rounds have the same batches.
            logits[name] = score_cases(engine, model, cases, draw.max_pair_tokens)
        singles = encode_cases(model, cases, draw.max_pair_tokens)
        pairs = PairSet(tuple(sorted(singles, key=lambda single: int(single.lengths[0]))))
        seconds = race(engines, pairs, options.rounds, say)
    rows = [
        _row((name, engine.info.stamp.precision), seconds, (cases, logits, model.head.entailment))
        for name, engine in engines.items()
    ]
    return Report(machine, len(cases), len(singles), options.rounds, threads, tuple(rows), skipped)


def race(engines: Mapping[str, Engine], pairs: PairSet, rounds: int, say: Say) -> dict[str, list[float]]:
    """Seconds of every round for all pairs, each engine with batches of its own size."""
    batches = {name: pairs.batches(engine.info.token_budget) for name, engine in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number, name in alternating(tuple(engines), rounds):
        say(f"round {number + 1} of {rounds}: {name}")
        seconds[name].append(seconds_of(engines[name], batches[name]))
    return seconds


def _row(
    who: tuple[str, str],
    seconds: Mapping[str, Sequence[float]],
    scored: tuple[Sequence[Case], Mapping[str, Sequence[Float32Array]], int],
) -> Found:
    (name, precision), (cases, logits, entailment) = who, scored
    agreement = compare(cases, logits[REFERENCE], logits[name], entailment)
    return Found(
        name=name,
        precision=precision,
        pairs_per_second=sum(len(each) for each in logits[name]) / median(seconds[name]),
        ratio=median_ratio(seconds[OURS], seconds[name]),
        same_all=agreement["same_all"],
        same_sure=agreement["same_sure"],
        max_logit_error=agreement["max_logit_error"],
        mean_logit_error=agreement["mean_logit_error"],
    )


def _float32_copy(model: ModelFolder, scratch: Path) -> ModelFolder:
    """The model's weights for those who cannot read OpenVINO's; written once."""
    copy = scratch / "float32"
    return open_folder(copy if copy.is_dir() else write_float32_copy(model, copy), model.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line and print a table."""
    usual = Options(Path())
    parser = argparse.ArgumentParser(prog="python -m worker.bench.cpu_engines", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder of *{SUFFIX}")
    parser.add_argument("--texts", type=int, default=usual.texts)
    parser.add_argument("--rounds", type=int, default=usual.rounds)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--threads", type=int, help="of every contestant (all cores)")
    parser.add_argument("--model", type=Path, default=usual.model, help="folder with openvino_model.xml (bundled)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args(arguments)
    options = Options(asked.data, asked.texts, asked.rounds, asked.seed, asked.threads, asked.model)
    report = measure(options, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    lines = [json.dumps(report_of(asdict(report)))] if asked.json else _lines(report)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _lines(report: Report) -> list[str]:
    cost = f"{report.threads} threads, medians of {report.rounds} rounds"
    return [
        f"{report.machine['cpu']}: {report.texts} texts, {report.pairs} pairs, {cost}",
        "",
        "| | pairs a second | this worker = 1 | same top label | same where sure | largest logit error | mean |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {_titled(each)} | {each.pairs_per_second:.1f} | {each.ratio:.2f} | {100 * each.same_all:.1f} % "
            f"| {100 * each.same_sure:.1f} % | {each.max_logit_error:.3g} | {each.mean_logit_error:.2g} |"
            for each in report.found
        ),
        *(f"left out: {name}: {reason}" for name, reason in report.skipped.items()),
    ]


def _titled(found: Found) -> str:
    """The name, and the precision where the name does not say it."""
    return found.name if found.precision in found.name else f"{found.name}, {found.precision}"


if __name__ == "__main__":
    raise SystemExit(main())
