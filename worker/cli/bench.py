"""`worker bench`: how fast it is, here and now, and next to what."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import typer

TEXTS = typer.Option(None, "--texts", help="A file or folder of texts (lines, or JSON lines with `text`). None: made.")
LABELS = typer.Option(8, min=1, help="How many labels.")
MODEL = typer.Option("bundled", help="`bundled`, a folder, or a Hugging Face id@revision.")
ENGINE = typer.Option("auto", help="auto | openvino | pytorch | fake")
PRECISION = typer.Option("auto", help="auto | float32 | bfloat16 | float16")
THREADS = typer.Option(None, min=1, help="Threads of the engine; default: every core.")
QUICK = typer.Option(False, "--quick", help="Under two minutes: fewer cells and rounds.")
AS_JSON = typer.Option(False, "--json", help="One JSON object.")
WorkloadName = Literal["short", "mixed", "long"]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    commands = typer.Typer(help="Measure the engine, the worker, and what else one could run.", no_args_is_help=True)
    commands.command("engine")(engine)
    commands.command("pipeline")(pipeline)
    commands.command("compare")(compare)
    commands.command("scale-out")(scale_out)
    commands.command("memory")(memory)
    commands.command("shortlist")(shortlist)
    commands.command("label-changes")(label_changes)
    commands.command("host")(host)
    app.add_typer(commands, name="bench")


def engine(
    texts: Path | None = TEXTS,
    messages: int = typer.Option(200, min=1, help="Texts of each workload."),
    labels: int = LABELS,
    model: str = MODEL,
    engine: str = ENGINE,
    precision: str = PRECISION,
    threads: int | None = THREADS,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """Pairs and tokens a second by length and batch, next to the machine's own matrix products."""
    from worker.bench.engine_bench import EngineBench, run_engine_bench
    from worker.bench.workloads import Recipe
    from worker.engines.load import EngineChoice

    _quiet()
    choice = EngineChoice(model, engine, precision, threads=threads)
    recipe = Recipe(texts=messages if not quick else min(messages, 60), labels=labels, source=texts)
    bench = EngineBench.quick(choice, recipe) if quick else EngineBench(choice, recipe)
    _show(run_engine_bench(bench, _say(as_json=as_json)), ("grid", "workloads"), as_json=as_json)


def pipeline(
    workload: WorkloadName = typer.Option("mixed", help="The length distribution of the texts."),
    texts: Path | None = TEXTS,
    labels: int = LABELS,
    repeated: float = typer.Option(0.0, min=0.0, max=0.95, help="Share of texts that came before."),
    topics: int = typer.Option(1, min=1, help="Input topics, each with a label schema of its own."),
    workers: int = typer.Option(1, min=1, help="Processes of the worker: its own --workers."),
    seconds: float | None = typer.Option(None, min=0.1, help="About how long one run takes."),
    rounds: int | None = typer.Option(None, min=1, help="Runs, alternating with the engine by itself."),
    model: str = MODEL,
    engine: str = ENGINE,
    precision: str = PRECISION,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """The whole worker on an embedded Kafka at saturation and below, next to the engine by itself."""
    from dataclasses import replace

    from worker.bench.pipeline_bench import PipelineBench, run_pipeline_bench
    from worker.bench.workloads import Recipe
    from worker.engines.load import EngineChoice

    _quiet()
    recipe = Recipe(workload, labels=labels, repeated=repeated, source=texts)
    bench = PipelineBench(EngineChoice(model, engine, precision), recipe, topics, workers)
    bench = bench.quickly() if quick else bench
    bench = replace(bench, seconds=seconds or bench.seconds, rounds=rounds or bench.rounds)
    _show(run_pipeline_bench(bench, _say(as_json=as_json)), ("latency",), as_json=as_json)


def scale_out(
    workers: list[int] = typer.Option([1, 2], min=1, help="Numbers of processes to compare, each its own --workers N."),
    workload: WorkloadName = typer.Option("mixed", help="The length distribution of the texts."),
    texts: Path | None = TEXTS,
    labels: int = LABELS,
    seconds: float = typer.Option(20.0, min=0.1, help="About how long one run takes."),
    rounds: int = typer.Option(5, min=1, help="Runs of each, alternating."),
    model: str = MODEL,
    engine: str = ENGINE,
    precision: str = PRECISION,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """One process and two under one parent, in turn on the same texts, on an embedded Kafka."""
    from worker.bench.scale_out import ScaleOutBench, run_scale_out_bench
    from worker.bench.workloads import Recipe
    from worker.engines.load import EngineChoice

    _quiet()
    recipe = Recipe(workload, labels=labels, source=texts)
    bench = ScaleOutBench(EngineChoice(model, engine, precision), recipe, tuple(workers), seconds, rounds)
    bench = bench.quickly() if quick else bench
    _show(run_scale_out_bench(bench, _say(as_json=as_json)), ("processes",), as_json=as_json)


def memory(
    minutes: float = typer.Option(60.0, min=0.01, help="How long."),
    rate: float | None = typer.Option(None, min=0.01, help="Messages a second; default: 30 % of what it can do."),
    workload: WorkloadName = typer.Option("mixed", help="The length distribution of the texts."),
    labels: int = LABELS,
    model: str = MODEL,
    engine: str = ENGINE,
    precision: str = PRECISION,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """The size of the whole worker at a steady load of texts of which none comes twice, on an embedded Kafka."""
    from worker.bench.memory_bench import MemoryBench, run_memory_bench, shown
    from worker.bench.workloads import Recipe
    from worker.engines.load import EngineChoice

    _quiet()
    bench = MemoryBench(EngineChoice(model, engine, precision), Recipe(workload, labels=labels), minutes, rate)
    report = run_memory_bench(bench.quickly() if quick else bench, _say(as_json=as_json))
    _show(report if as_json else shown(report), ("samples",), as_json=as_json)


def shortlist(
    labels: int = typer.Option(150, min=2, help="How many labels; of a test set, how many of its classes."),
    top_k: int = typer.Option(25, min=1, help="How many of them the shortlist has scored."),
    texts: int = typer.Option(200, min=1, help="Messages of one run."),
    rounds: int = typer.Option(5, min=1, help="Runs of each, alternating."),
    data: Path | None = typer.Option(None, help="A folder of test sets, NAME.test.jsonl.gz. None: texts are made."),
    set_name: str = typer.Option("clinc150", "--set", help="Which of them."),
    model: str = MODEL,
    engine: str = ENGINE,
    precision: str = PRECISION,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """A topic whose schema has a shortlist next to one with all labels scored, on an embedded Kafka."""
    from worker.bench.shortlist_bench import ShortlistBench, run_shortlist_bench
    from worker.engines.load import EngineChoice

    _quiet()
    choice = EngineChoice(model, engine, precision)
    bench = ShortlistBench(choice, labels, top_k, texts, rounds, data, set_name)
    bench = bench.quickly() if quick else bench
    _show(run_shortlist_bench(bench, _say(as_json=as_json)), (), as_json=as_json)


def label_changes(
    workers: int = typer.Option(3, min=1, help="Workers of the fleet, a process each."),
    labels: int = LABELS,
    seconds: float = typer.Option(20.0, min=0.1, help="About how long one run takes."),
    rounds: int = typer.Option(7, min=1, help="Pairs of runs, without and with changes in turn."),
    model: str = MODEL,
    engine: str = ENGINE,
    precision: str = PRECISION,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """A fleet that is given a version of its labels each second, some of them bad, next to the same left alone."""
    from worker.bench.changes_bench import ChangesBench, run_changes_bench
    from worker.engines.load import EngineChoice

    _quiet()
    bench = ChangesBench(EngineChoice(model, engine, precision), workers, labels, seconds, rounds)
    bench = bench.quickly() if quick else bench
    _show(run_changes_bench(bench, _say(as_json=as_json)), (), as_json=as_json)


def compare(
    workload: WorkloadName = typer.Option("mixed", help="The length distribution of the texts."),
    texts: Path | None = TEXTS,
    labels: int = LABELS,
    repeated: float = typer.Option(0.0, min=0.0, max=0.95, help="Share of texts that came before."),
    seconds: float | None = typer.Option(None, min=0.1, help="About how long a run of the plain loop takes."),
    rounds: int | None = typer.Option(None, min=1, help="Runs of everybody, alternating."),
    curves: bool = typer.Option(True, help="Also the cost by labels, message size, topics and repeated texts."),
    picture: Path | None = typer.Option(None, help="Write the results as a PNG to this file."),
    model: str = typer.Option("bundled", help="`bundled`, or a folder with model.safetensors."),
    threads: int | None = THREADS,
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """This worker next to a plain loop around transformers, Quix Streams and others, on the same messages.

    Needs uv and a checkout: every contestant runs in an environment of its own.
    """
    from dataclasses import replace

    from worker.bench.compare_bench import CompareBench, run_compare_bench
    from worker.bench.curves import Curves
    from worker.bench.picture import draw_picture
    from worker.bench.workloads import Recipe
    from worker.engines.load import EngineChoice

    _quiet()
    recipe = Recipe(workload, labels=labels, repeated=repeated, source=texts)
    wanted = Curves(source=texts) if curves else Curves((), (), (), ())
    bench = CompareBench(EngineChoice(model, threads=threads), recipe, curves=wanted)
    bench = bench.quickly() if quick else bench
    bench = replace(bench, seconds=seconds or bench.seconds, rounds=rounds or bench.rounds)
    report = run_compare_bench(bench, _say(as_json=as_json))
    if picture is not None:
        draw_picture(report, picture)
    _show(report, ("contestants",), as_json=as_json)


def host(
    labels: int = typer.Option(2, min=1, help="How many labels."),
    records: int = typer.Option(20_000, min=1, help="Records of one run."),
    rounds: int = typer.Option(3, min=1, help="Runs of each, alternating."),
    quick: bool = QUICK,
    as_json: bool = AS_JSON,
) -> None:
    """What the worker costs around its engine, step by step, next to a bare transactional loop; the engine is fake."""
    from worker.bench.host import HostOptions, host_table, measure_host

    _quiet()
    options = (
        HostOptions(min(records, 5_000), labels, min(rounds, 2)) if quick else HostOptions(records, labels, rounds)
    )
    report = measure_host(options, _say(as_json=as_json))
    print(json.dumps(report.as_json()) if as_json else host_table(report))


def _quiet() -> None:
    from worker.observability.logging import configure_logging

    configure_logging("error")


class _Progress:
    """What a bench says while it runs, on standard error, where somebody watches."""

    def __init__(self, *, is_heard: bool) -> None:
        self._is_heard = is_heard

    def __call__(self, line: str) -> None:
        if self._is_heard:
            print(f"bench: {line}", file=sys.stderr, flush=True)


def _say(*, as_json: bool) -> _Progress:
    return _Progress(is_heard=sys.stderr.isatty() or not as_json)


def _show(report: Mapping[str, object], tables: Sequence[str], *, as_json: bool) -> None:
    from worker.bench.text import lines_of

    print(json.dumps(report) if as_json else "\n".join(lines_of(report, tables=tables)))
