import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.batches import batch_of
from tests.support.tiny_openvino import write_tiny_model
from worker.engines import ov
from worker.engines.artifact import open_folder
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions, usable_cores
from worker.errors import ConfigError, EngineError


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("odd", 8)])
def test_threads_are_bounded_by_the_quota_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(ov, "_CPU_QUOTA_FILE", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("wanted", "capabilities", "chosen"),
    [("auto", ["FP32", "BF16"], "bfloat16"), ("auto", ["FP32"], "float32"), ("float32", ["FP32", "BF16"], "float32")],
)
def test_bfloat16_is_chosen_where_the_cpu_has_it(wanted: str, capabilities: list[str], chosen: str) -> None:
    assert ov._choose_precision(wanted, capabilities) == chosen


@pytest.mark.parametrize("wanted", ["bfloat16", "float16", "int8"])
def test_a_precision_that_the_cpu_has_not_is_refused_by_key(wanted: str) -> None:
    with pytest.raises(ConfigError, match="precision: "):
        ov._choose_precision(wanted, ["FP32"])


def test_a_graph_that_is_damaged_is_a_typed_error(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    (folder / "openvino_model.xml").write_text("<net>")
    with pytest.raises(EngineError, match="cannot load"):
        OpenVinoEngine(open_folder(folder), OpenVinoOptions())


def test_the_threads_asked_for_are_used_and_told(tmp_path: Path) -> None:
    engine = OpenVinoEngine(open_folder(write_tiny_model(tmp_path)), OpenVinoOptions("float32", threads=1))
    assert engine.info.details["threads"] == "1"


def test_results_of_an_earlier_call_are_not_overwritten_by_a_later_one(tmp_path: Path) -> None:
    engine = OpenVinoEngine(open_folder(write_tiny_model(tmp_path)), OpenVinoOptions("float32"))
    first = engine.score(batch_of([5, 6], [7, 8])).logits
    kept = first.tolist()
    engine.score(batch_of([9, 10], [11, 12]))
    assert first.tolist() == kept


STARVED = """
import resource
from pathlib import Path
from worker.engines.artifact import open_folder
from worker.engines.layout import filler_batch
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineOutOfMemoryError

engine = OpenVinoEngine(open_folder(BUNDLED_FOLDER), OpenVinoOptions(threads=1))
before = engine.score(filler_batch(4, 32)).logits
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, resource.RLIM_INFINITY))
try:
    engine.score(filler_batch(4096, 128))
except EngineOutOfMemoryError:
    print("out of memory")
print(abs(engine.score(filler_batch(4, 32)).logits - before).max() == 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_a_batch_for_which_there_is_no_memory_is_told_as_such_and_smaller_ones_still_have_their_logits() -> None:
    """In a process of its own, whose address space is limited after the engine is loaded."""
    command = [sys.executable, "-c", STARVED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ["out of memory", "True"] == done.stdout.split("\n")[:2]
