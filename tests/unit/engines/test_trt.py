from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import fake_tensorrt
from tests.support.batches import batch_of, random_pairs
from tests.support.fake_cuda import HostDevice
from tests.support.fake_tensorrt import state
from tests.support.plans import build_tiny, open_tiny, write_folder
from tests.support.wait import found_in_time
from worker.engines.cuda import Stream
from worker.engines.profiles import LAYOUTS
from worker.engines.trt import TensorRtEngine, TensorRtOptions
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.types import Float32Array, Int32Array

NETWORK_LAYOUTS = ("lengths", "packed")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    state.reset()
    yield
    state.reset()


def test_the_layouts_under_test_are_those_there_are() -> None:
    assert set(LAYOUTS) == {"padded", *NETWORK_LAYOUTS}


def test_packed_and_padded_plans_say_the_same(tmp_path: Path) -> None:
    pairs = random_pairs(23, 60, 30_000)
    said = [open_tiny(tmp_path / layout, layout).score(batch_of(*pairs)).logits for layout in NETWORK_LAYOUTS]
    assert np.abs(said[0] - said[1]).max() <= 2e-2
    assert float(np.ptp(said[0], axis=0).max()) > 0.5


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float8"])
@pytest.mark.parametrize("layout", NETWORK_LAYOUTS)
def test_a_pair_is_scored_alike_alone_and_in_any_batch(tmp_path: Path, layout: str, precision: str) -> None:
    engine = open_tiny(tmp_path, layout, precision=precision)
    pairs = random_pairs(11, 60, 30_000, seed=4)
    together = engine.score(batch_of(*pairs)).logits
    alone = np.concatenate([engine.score(batch_of(pair)).logits for pair in pairs])
    assert np.abs(together - alone).max() <= 5e-2
    engine.close()


@pytest.mark.parametrize("layout", NETWORK_LAYOUTS)
def test_shapes_and_addresses_are_set_and_inferred_before_anything_runs(tmp_path: Path, layout: str) -> None:
    engine = open_tiny(tmp_path, layout, TensorRtOptions(lanes=1, recorded_shapes=0))
    state.calls.clear()
    engine.score(batch_of([5, 6, 7]))
    steps = [call[0] for call in state.calls]
    last_input = max(index for index, step in enumerate(steps) if step.startswith("set_"))
    assert steps[last_input + 1 :] == ["infer_shapes", "execute_async_v3"]
    inputs = {call[1] for call in state.named("set_input_shape")}
    addresses = {call[1] for call in state.named("set_tensor_address")}
    assert addresses == inputs | {"logits"}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("set_input_shape", "the shape of input_ids"),
        ("set_tensor_address", "the address of input_ids"),
        ("execute_async_v3", "did not run this batch"),
    ],
)
def test_every_false_answer_of_the_library_is_an_error_and_never_old_logits(
    tmp_path: Path, call: str, error: str
) -> None:
    engine = open_tiny(tmp_path, "lengths")
    engine.score(batch_of([5, 6, 7]))
    state.answers[call] = False
    with pytest.raises((EngineError, RuntimeError), match=error):
        engine.score(batch_of([8, 9, 10]))
    state.answers.clear()
    assert engine.score(batch_of([8, 9, 10])).logits.shape == (1, 3)


@pytest.mark.parametrize("recorded_shapes", [0, 16])
@pytest.mark.parametrize(
    "complaint",
    [
        "[resizingAllocator.cpp::allocate::73] Error Code 1: Cuda Runtime (out of memory)",
        "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory (Requested size was 1024 bytes.)",
    ],
)
def test_a_batch_that_was_not_run_for_lack_of_memory_is_named_as_such(
    tmp_path: Path, complaint: str, recorded_shapes: int
) -> None:
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(recorded_shapes=recorded_shapes))
    state.answers["execute_async_v3"], state.complaint = False, complaint
    with pytest.raises(EngineOutOfMemoryError, match=r"lower batching\.max_tokens"):
        engine.score(batch_of([5, 6, 7]))
    state.complaint = ""
    with pytest.raises(RuntimeError, match="did not run this batch: it does not say why"):
        engine.score(batch_of([5, 6, 7]))
    state.complaint = "Error Code 1: Myelin ([cask.cpp:2] illegal address)"
    with pytest.raises(RuntimeError, match="did not run this batch: Error Code 1: Myelin"):
        engine.score(batch_of([5, 6, 7]))
    state.answers.clear()
    assert engine.score(batch_of([5, 6, 7])).logits.shape == (1, 3)


def test_shapes_that_are_missing_are_named(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "lengths")
    state.answers["infer_shapes"] = ["lengths"]
    with pytest.raises(EngineError, match="lacks the shapes of lengths"):
        engine.score(batch_of([5, 6, 7]))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("deserialize_cuda_engine", "refused: the plan in"),
        ("create_execution_context", "refused: an execution context"),
        ("set_optimization_profile_async", "refused: profile 0"),
    ],
)
def test_a_plan_that_the_library_refuses_is_a_typed_error(tmp_path: Path, call: str, error: str) -> None:
    folder, stored = write_folder(tmp_path / "model"), build_tiny(tmp_path / "plans", "packed")
    state.answers[call] = False
    with pytest.raises(EngineError, match=error):
        TensorRtEngine(fake_tensorrt, HostDevice(), folder, stored, TensorRtOptions())


def test_a_plan_with_a_tensor_of_another_type_is_refused(tmp_path: Path) -> None:
    folder, stored = write_folder(tmp_path / "model"), build_tiny(tmp_path / "plans", "packed")
    state.answers["get_tensor_dtype"] = fake_tensorrt.DataType.INT64
    with pytest.raises(EngineError, match="another type than this version feeds; build it anew"):
        TensorRtEngine(fake_tensorrt, HostDevice(), folder, stored, TensorRtOptions())


def test_too_little_memory_for_a_lane_is_named_as_such(tmp_path: Path) -> None:
    folder, stored = write_folder(tmp_path / "model"), build_tiny(tmp_path / "plans", "packed")
    with pytest.raises(EngineOutOfMemoryError):
        TensorRtEngine(fake_tensorrt, HostDevice(memory_bytes=100), folder, stored, TensorRtOptions())


@pytest.mark.parametrize("layout", NETWORK_LAYOUTS)
def test_a_small_shape_that_comes_back_is_recorded_once_and_then_only_replayed(tmp_path: Path, layout: str) -> None:
    engine = open_tiny(tmp_path, layout, TensorRtOptions(lanes=1))
    batch = batch_of(*random_pairs(3, 12, 30_000))
    first = engine.score(batch).logits
    assert state.named("record", "replay") == []
    engine.score(batch)
    assert state.named("record", "replay") == [("record",), ("replay",)], "recorded, and looked at once"
    state.calls.clear()
    other = batch_of(*random_pairs(3, 12, 30_000))
    again = [engine.score(other).logits for _ in range(2)]
    assert state.named("execute_async_v3") == []
    assert state.named("replay") == [("replay",)] * 2
    assert np.array_equal(again[0], again[1])
    assert np.abs(again[0] - first).max() == 0.0


def test_a_recorded_launch_scores_what_it_is_given_now(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "packed", TensorRtOptions(lanes=1))
    plain = open_tiny(tmp_path / "plain", "packed", TensorRtOptions(lanes=1, recorded_shapes=0))
    for seed in range(5):
        batch = batch_of(*[pair[:9] for pair in random_pairs(4, 12, 30_000, seed=seed)])
        assert np.abs(engine.score(batch).logits - plain.score(batch).logits).max() <= 1e-3
    assert state.named("replay") != []


def test_a_launch_that_cannot_be_recorded_is_made_anew_every_time_and_counted(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(lanes=1))
    state.answers["record"] = False
    batch = batch_of([5, 6, 7])
    said = [engine.score(batch).logits for _ in range(5)]
    assert all(np.array_equal(each, said[0]) for each in said)
    assert (engine.recordings_failed, state.named("replay")) == (1, [])


def test_a_recording_in_which_there_is_nothing_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work queued on another device leaves the recording empty, and the logits of the batch before in their place."""
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(lanes=1))
    for lane in engine._lanes:
        monkeypatch.setattr(lane._stream, "record", lambda _launch: lambda: None)
    said = [engine.score(batch_of([5, 6, 7])).logits for _ in range(4)]
    assert all(np.array_equal(each, said[0]) for each in said)
    assert engine.recordings_failed == 1


def test_no_more_shapes_are_recorded_than_allowed(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(lanes=1, recorded_shapes=2))
    for _ in range(4):
        for count in (1, 2, 3, 5):
            engine.score(batch_of(*[[5, 6, 7]] * count))
    assert len(engine._lanes[0]._recorded) == 2


def test_every_profile_is_run_in_every_lane_when_warming_up(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(lanes=2))
    state.calls.clear()
    engine.warm_up()
    shapes = [call[1]["input_ids"] for call in state.named("execute_async_v3")]
    for profile in engine.profiles:
        assert shapes.count((1, profile.tokens)) >= 2
        assert shapes.count((profile.pairs, profile.tokens)) >= 2


def test_the_work_of_a_batch_goes_to_both_lanes(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "lengths")
    used = [0, 0]
    for number, lane in enumerate(engine._lanes):
        run = lane._run

        def count(batch: object, profile: int, number: int = number, run: object = run) -> object:
            used[number] += 1
            return run(batch, profile)  # type: ignore[operator]  # it is a method

        lane._run = count  # type: ignore[assignment]  # counted for the test
    logits = engine.score(batch_of(*random_pairs(40, 60, 30_000))).logits
    assert np.isfinite(logits).all()
    assert min(used) > 0


def test_a_pair_longer_than_any_profile_fails_its_batch_alone(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "packed")
    with pytest.raises(ValueError, match="a pair has 300 tokens, and the engine takes 256"):
        engine.score(batch_of(list(range(5, 305))))


def test_a_closed_engine_refuses_to_score_and_may_be_closed_again(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path, "packed")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.score(batch_of([5, 6, 7]))


def test_what_is_said_of_the_engine_is_complete(tmp_path: Path) -> None:
    info = open_tiny(tmp_path, "packed").info
    assert (info.stamp.engine, info.stamp.precision, info.max_pair_tokens) == ("tensorrt", "float16", 64)
    assert info.details["device"] == "Fake GPU"
    assert info.token_budget >= info.max_pair_tokens


class _Watched:
    """A lane's stream that notes what it is asked for, and whose work is done only when `is_done` says so."""

    def __init__(self, stream: Stream, name: str, seen: list[tuple[str, str]], is_done: Callable[[], None]) -> None:
        self._stream, self._name, self._seen, self._is_done = stream, name, seen, is_done

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def upload(self, values: Int32Array) -> int:
        self._seen.append((self._name, "prepared"))
        return self._stream.upload(values)

    def download(self, count: int) -> Float32Array:
        self._seen.append((self._name, "launched"))
        self._is_done()
        fetched = self._stream.download(count)
        self._seen.append((self._name, "done"))
        return fetched


def test_the_next_chunk_is_prepared_and_launched_while_the_one_before_still_computes(tmp_path: Path) -> None:
    """The first lane's work takes until the second has launched its own: one after the other, it would never end."""
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(recorded_shapes=0))
    expected = engine.score(many := batch_of(*random_pairs(40, 60, 30_000))).logits
    seen: list[tuple[str, str]] = []
    first, second = engine._lanes

    def until_the_other_has_launched() -> None:
        if seen.count(("second", "launched")) == 0:
            found_in_time(lambda: ("second", "launched") in seen)

    first._stream = _Watched(first._stream, "first", seen, until_the_other_has_launched)  # type: ignore[assignment]  # as one
    second._stream = _Watched(second._stream, "second", seen, lambda: None)  # type: ignore[assignment]  # as above
    assert np.array_equal(engine.score(many).logits, expected)
    engine.close()
    done = seen.index(("first", "done"))
    assert {("second", "prepared"), ("second", "launched")} <= set(seen[:done])


def test_the_next_batch_computes_before_the_last_one_is_waited_for(tmp_path: Path) -> None:
    """Both are a chunk each: the second goes to the lane that the first leaves free."""
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(recorded_shapes=0))
    batches = [batch_of([5, 6, 7]), batch_of([8, 9])]
    expected = [engine.score(batch).logits for batch in batches]
    seen: list[tuple[str, str]] = []

    def until_the_other_is_done() -> None:
        found_in_time(lambda: ("second", "done") in seen)

    first, second = engine._lanes
    first._stream = _Watched(first._stream, "first", seen, until_the_other_is_done)  # type: ignore[assignment]  # as one
    second._stream = _Watched(second._stream, "second", seen, lambda: None)  # type: ignore[assignment]  # as above
    waits = [engine.begin(batch) for batch in batches]
    for wait, logits in zip(waits, expected, strict=True):
        assert np.array_equal(wait().logits, logits)
    engine.close()


def test_a_lane_prepares_nothing_before_what_it_computes_is_fetched(tmp_path: Path) -> None:
    """It has one piece of memory for inputs: what is copied there too early would be read by the chunk before."""
    engine = open_tiny(tmp_path, "lengths", TensorRtOptions(lanes=1, recorded_shapes=0))
    seen: list[tuple[str, str]] = []
    (lane,) = engine._lanes
    lane._stream = _Watched(lane._stream, "only", seen, lambda: None)  # type: ignore[assignment]  # as above
    engine.score(batch_of(*random_pairs(40, 60, 30_000)))
    engine.close()
    steps = [step for _, step in seen]
    assert len(steps) >= 6
    assert steps == ["prepared", "launched", "done"] * (len(steps) // 3)
