"""TensorRT and torch on a GPU, side by side: `python benchmarks/gpu.py --stage probe|build|parity|bench --model …`.

Every stage can be run again and goes on where it stopped; it begins nothing new after `--seconds`. Results are
appended to `--out` as JSON lines, and `--stage table` shows them. `--dry` runs all of it on a CPU, with tiny models and
a stand-in for the library, in a folder of its own: it shows that the script works and measures nothing.
`--stage lengths --data FOLDER` takes the lengths of real texts anew.
"""

import argparse
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MODELS = ("minilm", "bert-base", "deberta-v3-base", "modernbert-base")
BUDGETS = (2048, 4096, 8192, 16_384, 32_768, 65_536)
WORKLOADS = ("128", "64", "mix")
PIPELINE_SIZES = (32, 128, 512)
QUESTION_SECONDS = 120.0


def main() -> int:
    """Run one stage."""
    options = _options()
    _stand_in_for_logging()
    if options.question:
        return _answer(options)
    if options.dry:
        # Its tiny models and its figures must never be taken for real ones.
        options.root /= "dry"
        _stand_in_for_gpu(options.root)
    options.root.mkdir(parents=True, exist_ok=True)
    from benchmarks.gpu_journal import Journal, table  # noqa: PLC0415  # the path is set above

    journal = Journal(options.out or options.root / "results.jsonl", options.seconds, again=options.again)
    if options.stage in {"probe", "build", "parity", "bench"}:
        from benchmarks.gpu_probe import versions  # noqa: PLC0415  # as above

        journal.begin(" ".join(["python", *sys.argv]), versions())
    if options.stage == "lengths":
        from benchmarks.gpu_models import write_length_mix  # noqa: PLC0415  # as above

        write_length_mix(options.data)
    elif options.stage == "probe":
        _probe(options, journal)
    elif options.stage != "table":
        for model in options.model or MODELS:
            {"build": _build, "parity": _parity, "bench": _bench}[options.stage](options, journal, model)
    if options.dry:
        print("A dry run: tiny models, no GPU, a stand-in for TensorRT. Nothing below is a measurement.")
    print(table(journal.rows))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("probe", "build", "parity", "bench", "table", "lengths"), default="table")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--engine", action="append", help="only engines of the table with this in their name")
    parser.add_argument("--root", type=Path, default=Path("/tmp/nli-gpu"), help="for models, plans and results")  # noqa: S108
    parser.add_argument("--out", type=Path, help="results; without it, results.jsonl in --root")
    parser.add_argument("--seconds", type=float, default=440.0)
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data/cls"))
    parser.add_argument("--question", help=argparse.SUPPRESS)
    return parser.parse_args()


def _probe(options: argparse.Namespace, journal: Any) -> None:  # noqa: ANN401  # a Journal
    from benchmarks.gpu_probe import QUESTIONS  # noqa: PLC0415  # the path is set above

    for question in QUESTIONS:
        journal.measure({"stage": "probe", "question": question}, lambda question=question: _ask(options, question))


def _ask(options: argparse.Namespace, question: str) -> dict[str, Any]:
    from benchmarks.gpu_journal import SkippedError  # noqa: PLC0415  # as above

    if options.dry and question == "varlen":
        raise SkippedError("torch's packed attention runs on a GPU only")
    command = [sys.executable, __file__, "--question", question, "--root", str(options.root)]
    command += ["--dry"] if options.dry else []
    # Without a GPU nothing hangs, and the machine may be busy with other things.
    limit = None if options.dry else QUESTION_SECONDS
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-400:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _answer(options: argparse.Namespace) -> int:
    if options.dry:
        _stand_in_for_gpu(options.root)
    from benchmarks.gpu_probe import ask  # noqa: PLC0415  # the path is set above

    print(json.dumps(ask(options.question)))
    return 0


def _build(options: argparse.Namespace, journal: Any, model: str) -> None:  # noqa: ANN401  # a Journal
    from benchmarks import gpu_models, gpu_runs  # noqa: PLC0415  # the path is set above

    folder = gpu_models.make_model(options.root / "models", model, is_dry=options.dry)
    for name, order in _wanted(options, gpu_runs.orders(model, is_dry=options.dry).items()):
        journal.measure(
            {"stage": "build", "model": model, "engine": name},
            lambda order=order: gpu_runs.build(options.root, folder, order, max(30.0, journal.left() + 20)),
        )


def _parity(options: argparse.Namespace, journal: Any, model: str) -> None:  # noqa: ANN401  # a Journal
    from benchmarks import gpu_models, gpu_runs  # noqa: PLC0415  # the path is set above

    folder = gpu_models.make_model(options.root / "models", model, is_dry=options.dry)
    golden = gpu_runs.float32_golden(folder)
    for name, _ in _wanted(options, ((name, None) for name in gpu_runs.names(model, is_dry=options.dry))):
        journal.measure(
            {"stage": "parity", "model": model, "engine": name},
            lambda name=name: gpu_runs.parity(options.root, folder, name, golden, is_dry=options.dry),
        )


def _bench(options: argparse.Namespace, journal: Any, model: str) -> None:  # noqa: ANN401  # a Journal
    from benchmarks import gpu_models, gpu_runs  # noqa: PLC0415  # the path is set above

    folder = gpu_models.make_model(options.root / "models", model, is_dry=options.dry)
    for name, _ in _wanted(options, ((name, None) for name in gpu_runs.names(model, is_dry=options.dry))):
        if journal.left() == 0.0:
            print(f"no time left for {model}, {name}: run this stage again")
            return
        opened: list[Any] = []

        def open_one(name: str = name, opened: list[Any] = opened) -> dict[str, Any]:
            opened.append(gpu_runs.open_engine(options.root, folder, name, is_dry=options.dry))
            return {"details": dict(opened[0].info.details)}

        journal.open({"stage": "open", "model": model, "engine": name}, open_one)
        for engine in opened:
            try:
                _bench_engine(options, journal, (model, name), engine)
            finally:
                engine.close()
    for workload in WORKLOADS:
        for size in PIPELINE_SIZES[: 1 if options.dry else None]:
            half = "float32" if options.dry else "float16"
            key = {"stage": "bench", "model": model, "engine": "transformers pipeline", "precision": half}
            if options.engine and not any(part in "transformers pipeline" for part in options.engine):
                continue
            journal.measure(
                {**key, "workload": workload, "budget": f"{size} pairs"},
                lambda workload=workload, size=size: gpu_runs.pipeline_speed(
                    folder, workload, size, is_dry=options.dry
                ),
            )


def _bench_engine(options: argparse.Namespace, journal: Any, what: tuple[str, str], engine: Any) -> None:  # noqa: ANN401
    from benchmarks import gpu_runs  # noqa: PLC0415  # the path is set above

    model, name = what
    key = {"model": model, "engine": name, "precision": engine.info.stamp.precision}
    journal.measure({"stage": "latency", **key}, lambda: gpu_runs.latency(engine, is_dry=options.dry))
    for workload in WORKLOADS:
        for budget in BUDGETS[:1] if options.dry else BUDGETS:
            journal.measure(
                {"stage": "bench", **key, "workload": workload, "budget": budget},
                lambda workload=workload, budget=budget: gpu_runs.speed(engine, workload, budget, is_dry=options.dry),
            )


def _wanted(options: argparse.Namespace, named: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # pairs
    for name, what in named:
        if not options.engine or any(part in name for part in options.engine):
            yield name, what


def _stand_in_for_logging() -> None:
    """A GPU machine may lack structlog, and all that is logged here is for people."""
    if find_spec("structlog") is not None:
        return

    def say(level: str) -> Callable[..., None]:
        return lambda event, **values: print(level, event, values, file=sys.stderr)

    log = types.SimpleNamespace(**{level: say(level) for level in ("debug", "info", "warning", "error")})
    module: Any = types.ModuleType("structlog")
    module.get_logger = lambda *_: log
    sys.modules["structlog"] = module


def _stand_in_for_gpu(root: Path) -> None:
    """A dry run: the fake library and a device in the host's memory, here and in processes that are started."""
    from tests.support import fake_cuda, fake_tensorrt  # noqa: PLC0415  # only a dry run needs the tests
    from tests.support.fake_site import python_path  # noqa: PLC0415  # as above
    from worker.engines import cuda  # noqa: PLC0415  # as above

    sys.modules["tensorrt"] = fake_tensorrt
    os.environ["PYTHONPATH"] = python_path(root / "site")
    cuda.open_device = fake_cuda.HostDevice


if __name__ == "__main__":
    sys.exit(main())
