"""Who may import whom: the contracts of pyproject.toml hold, and each of them can be broken."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Planted(NamedTuple):
    """One import added to a copy of the tree, and the contract that it breaks (none where it is allowed)."""

    module: str
    statement: str
    contract: str | None = None

    def __str__(self) -> str:
        """What happens where, as the name of a test."""
        return f"{self.module}: {self.statement}"


# The name of a contract, its verdict, and now and then a note.
BROKEN = re.compile(r"^(.+) BROKEN(?: \(.*\))?$", re.MULTILINE)

FLOW = "Rooms import downwards only, and the running worker never imports training or bench"
PURE = "The path from message to prediction is pure"
PIPELINE = "The pipeline observes nothing and is handed the label schema"
LABELS = "A label schema knows no registry, a registry no source, the pipeline neither"
LIBRDKAFKA = "Only worker.kafka imports confluent_kafka"
MODELS = "Only the loaders of worker.engines, training and bench import model libraries"
OPENTELEMETRY = "Only worker.observability.otel imports opentelemetry"
ENGINES = "One engine never imports another, and the seam imports none"

FORBIDDEN = [
    Planted("worker/kafka/planted.py", "import worker.cli", FLOW),
    Planted("worker/kafka/planted.py", "import worker.engines", FLOW),
    Planted("worker/labels/planted.py", "import worker.kafka", FLOW),
    Planted("worker/messages/planted.py", "import worker.labels", FLOW),
    Planted("worker/messages/planted.py", "import worker.config", FLOW),
    Planted("worker/observability/planted.py", "import worker.labels", FLOW),
    Planted("worker/room_without_a_place.py", "import json", FLOW),
    Planted("worker/app.py", "import worker.training", FLOW),
    Planted("worker/processor.py", "import worker.bench", FLOW),
    Planted("worker/engines/export.py", "import worker.training", FLOW),
    Planted("worker/training/finetune.py", "import worker.bench", FLOW),
    Planted("worker/pipeline/planted.py", "import torch", PURE),
    Planted("worker/pipeline/planted.py", "import prometheus_client", PURE),
    Planted("worker/messages/planted.py", "import structlog", PURE),
    Planted("worker/labels/schema.py", "import structlog", PURE),
    Planted("worker/pipeline/planted.py", "import worker.observability", PIPELINE),
    Planted("worker/pipeline/planted.py", "import worker.labels.registry", LABELS),
    Planted("worker/labels/schema.py", "import worker.labels.registry", LABELS),
    Planted("worker/observability/planted.py", "import confluent_kafka", LIBRDKAFKA),
    Planted("worker/cli/planted.py", "import confluent_kafka", LIBRDKAFKA),
    Planted("worker/observability/tracing.py", "import opentelemetry", OPENTELEMETRY),
    Planted("worker/delivery.py", "import opentelemetry", OPENTELEMETRY),
    Planted("worker/engines/base.py", "import openvino", MODELS),
    Planted("worker/engines/fake.py", "import torch", MODELS),
    Planted("worker/kafka/planted.py", "import transformers", MODELS),
    Planted("worker/engines/ov.py", "import worker.engines.pytorch", ENGINES),
    Planted("worker/engines/base.py", "import worker.engines.fake", ENGINES),
]
ALLOWED = [
    Planted("worker/kafka/planted.py", "import confluent_kafka"),
    Planted("worker/observability/otel.py", "import opentelemetry"),
    Planted("worker/engines/ov.py", "import openvino"),
    Planted("worker/engines/pytorch.py", "import torch, worker.engines.base"),
    Planted("worker/training/finetune.py", "import torch, worker.engines"),
    Planted("worker/config.py", "import worker.messages"),
    Planted("worker/pipeline/planted.py", "import numpy, tokenizers, worker.labels"),
]
# Modules that a planted import names and that not every version of the tree has.
STAND_INS = [
    "worker/bench/__init__.py",
    "worker/config.py",
    "worker/engines/fake.py",
    "worker/engines/pytorch.py",
    "worker/labels/registry.py",
    "worker/training/__init__.py",
]

# One interpreter lints every copy: starting one for each would take most of the time.
LINT_ALL = """
import contextlib, io, json, os, sys
from importlinter.cli import lint_imports

verdicts = {}
for folder in sys.argv[1:]:
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = lint_imports(no_cache=True, no_logo=True)
    verdicts[folder] = [code, said.getvalue()]
print(json.dumps(verdicts))
"""

# A finder that lets nothing of these names be imported, then every module of the running worker.
IMPORT_ALL = """
import importlib, pkgutil, sys

FORBIDDEN = {
    "huggingface_hub", "nncf", "onnx", "onnxruntime", "onnxscript", "openvino", "safetensors", "tensorrt", "torch",
    "transformers",
}
OFFLINE = ("worker.training", "worker.bench")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN or name.startswith(OFFLINE):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
import worker
entry_points = {"worker.__main__"}
for module in pkgutil.walk_packages(worker.__path__, "worker.", onerror=lambda _: None):
    if module.name not in entry_points and not module.name.startswith(OFFLINE):
        importlib.import_module(module.name)
        print(module.name)
"""


def run_python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The outcome of `code` in a fresh interpreter that finds the package of `folder` first."""
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "400"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def copy_tree(target: Path, planted: Planted) -> Path:
    """A copy of the package's modules and of the contracts, with one import added."""
    only_python = shutil.ignore_patterns("__pycache__", "*.bin", "*.jsonl", "*.json")
    shutil.copytree(ROOT / "worker", target / "worker", ignore=only_python)
    shutil.copy(ROOT / "pyproject.toml", target)
    for stand_in in STAND_INS:
        (target / stand_in).parent.mkdir(exist_ok=True)
        (target / stand_in).touch()
    with (target / planted.module).open("a", encoding="utf-8") as file:
        file.write(f"\n{planted.statement}\n")
    return target


@pytest.fixture(scope="module")
def broken_contracts(tmp_path_factory: pytest.TempPathFactory) -> dict[Planted, list[str]]:
    """The names of the contracts that each planted import breaks."""
    folders = {planted: copy_tree(tmp_path_factory.mktemp("tree"), planted) for planted in FORBIDDEN + ALLOWED}
    outcome = run_python(LINT_ALL, ROOT, *map(str, folders.values()))
    assert outcome.returncode == 0, outcome.stderr
    verdicts = json.loads(outcome.stdout)
    broken = {}
    for planted, folder in folders.items():
        code, said = verdicts[str(folder)]
        broken[planted] = BROKEN.findall(said)
        assert code == int(bool(broken[planted])), said
    return broken


def test_every_import_contract_is_kept() -> None:
    outcome = run_python(LINT_ALL, ROOT, str(ROOT))
    assert outcome.returncode == 0, outcome.stderr
    code, said = json.loads(outcome.stdout)[str(ROOT)]
    assert code == 0, said


@pytest.mark.parametrize("planted", FORBIDDEN, ids=str)
def test_a_planted_import_breaks_its_contract(broken_contracts: dict[Planted, list[str]], planted: Planted) -> None:
    assert planted.contract in broken_contracts[planted]


@pytest.mark.parametrize("planted", ALLOWED, ids=str)
def test_a_room_may_import_what_it_is_there_for(broken_contracts: dict[Planted, list[str]], planted: Planted) -> None:
    assert broken_contracts[planted] == []


def test_importing_the_running_worker_loads_no_model_library_and_no_offline_work() -> None:
    outcome = run_python(IMPORT_ALL, ROOT)
    assert outcome.returncode == 0, outcome.stderr
    assert "worker.types" in outcome.stdout.splitlines()


def test_importing_a_model_library_in_a_room_of_the_running_worker_is_noticed(tmp_path: Path) -> None:
    spoilt = copy_tree(tmp_path, Planted("worker/pipeline/planted.py", "import torch"))
    outcome = run_python(IMPORT_ALL, spoilt)
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines()[-1] == "AssertionError: torch was imported"
