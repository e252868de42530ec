import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.batches import batch_of
from tests.support.tiny_openvino import write_tiny_model
from worker.engines import ov_machine
from worker.engines.artifact import open_folder
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions, round_up, shares, stores_8bit_weights
from worker.engines.ov_machine import usable_cores
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineError, EngineOutOfMemoryError


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("odd", 8)])
def test_threads_are_bounded_by_the_quota_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(ov_machine, "_CPU_QUOTA_FILE", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == cores


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


@pytest.mark.parametrize(
    ("options", "size", "is_unpacked"),
    [
        (OpenVinoOptions("float32", threads=1), "0", True),
        (OpenVinoOptions("int8", threads=1), "32", False),
        (OpenVinoOptions("int8", threads=1, group=64, rest="float32"), "64", False),
    ],
)
def test_activations_are_quantised_only_in_int8_and_also_after_a_failure(
    options: OpenVinoOptions, size: str, is_unpacked: bool
) -> None:
    """Of products with unpacked weights OpenVINO quantises nothing."""
    engine = OpenVinoEngine(open_folder(BUNDLED_FOLDER), options)
    assert is_unpacked == ("weights" in engine.info.details["rewrites"])
    assert options.precision == engine.info.stamp.precision
    assert engine._requests is not None
    for compiled in (engine._requests._compiled, engine._requests._compile_again()):
        assert size == str(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))


class FailingRequest:
    """An infer request of OpenVINO's to which something happens instead."""

    def __init__(self, request: Any, instead: Callable[[], None]) -> None:  # noqa: ANN401  not typed for us
        self._request, self._instead = request, instead

    def start_async(self, _feed: object, *, share_inputs: bool) -> None:
        assert share_inputs

    def wait(self) -> None:
        self._instead()

    def get_output_tensor(self, index: int) -> Any:  # noqa: ANN401
        return self._request.get_output_tensor(index)


def run_out() -> None:
    raise RuntimeError("Exception from infer_request.cpp: std::bad_alloc")


@pytest.mark.parametrize("instead", [run_out, lambda: None], ids=["told", "silent"])
def test_missing_memory_is_told_also_where_openvino_keeps_silent_and_the_next_batch_is_scored(
    tmp_path: Path, instead: Callable[[], None]
) -> None:
    """Seen under a limit on the address space: no error, and the output of the batch before."""
    engine = OpenVinoEngine(open_folder(write_tiny_model(tmp_path / "model")), OpenVinoOptions(threads=1))
    batch = batch_of([5, 6, 7], [8, 9])
    before = engine.score(batch).logits
    assert engine._requests is not None
    [request] = engine._requests._idle
    engine._requests._idle = [FailingRequest(request, instead)]
    with pytest.raises(EngineOutOfMemoryError):
        engine.score(batch)
    np.testing.assert_array_equal(before, engine.score(batch).logits)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_that_is_begun_behind_another_gets_its_own_logits(tmp_path: Path, threads: int) -> None:
    engine = OpenVinoEngine(open_folder(write_tiny_model(tmp_path)), OpenVinoOptions("float32", threads=threads))
    batches = [batch_of([5, 6, 7], [8, 9]), batch_of([10]), batch_of([11, 12], [13, 14, 15], [16])]
    expected = [engine.score(batch).logits.tolist() for batch in batches]
    first, second = engine.begin(batches[0]), engine.begin(batches[1])
    found = [first().logits.tolist()]
    third = engine.begin(batches[2])
    assert expected == [*found, second().logits.tolist(), third().logits.tolist()]


def test_what_a_compiled_model_gives_after_a_failure_in_it_is_refused_and_right_when_asked_again(
    tmp_path: Path,
) -> None:
    """All requests of the model keep the shapes of the batch that failed: the next one's logits would be nonsense."""
    engine = OpenVinoEngine(open_folder(write_tiny_model(tmp_path)), OpenVinoOptions("float32", threads=1))
    expected = engine.score(following := batch_of([8, 9])).logits.tolist()
    assert engine._requests is not None
    [request] = engine._requests._idle
    engine._requests._idle = [FailingRequest(request, run_out)]
    first, second = engine.begin(batch_of([5, 6, 7])), engine.begin(following)
    with pytest.raises(EngineOutOfMemoryError):
        first()
    with pytest.raises(RuntimeError, match="another batch has failed"):
        second()
    assert expected == engine.score(following).logits.tolist()


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_a_batch_is_shared_out_whole_in_parts_of_like_lengths(most: int) -> None:
    lengths = np.array([40, 8, 8, 16, 40, 8, 30, 9], np.int32)
    parts = shares(lengths, most)
    assert len(parts) <= most
    assert list(range(8)) == sorted(row for part in parts for row in part.tolist())
    assert all(max(lengths[a]) <= min(lengths[b]) for a, b in itertools.pairwise(parts))


def test_two_streams_get_about_as_many_tokens() -> None:
    lengths = np.array([64] * 4 + [16] * 16, np.int32)
    assert [256, 256] == [int(lengths[part].sum()) for part in shares(lengths, 2)]


def test_a_single_pair_is_a_single_part() -> None:
    assert [[0]] == [part.tolist() for part in shares(np.array([512], np.int32), 4)]


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (7, 7), (8, 8), (9, 12), (12, 12), (13, 16), (33, 36)])
def test_what_is_not_small_is_rounded_up_so_that_shapes_come_again(number: int, expected: int) -> None:
    assert expected == round_up(number, 4)


def test_8bit_weights_are_told_from_the_graph_without_loading_it(tmp_path: Path) -> None:
    assert stores_8bit_weights(open_folder(BUNDLED_FOLDER))
    assert not stores_8bit_weights(open_folder(write_tiny_model(tmp_path)))
