import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from worker.engines.plans import MANIFEST_FILE, PLAN_FILE, PlanStore, plan_id, read_plan
from worker.errors import EngineError

FACTS: dict[str, Any] = {
    "model": "sha256:1",
    "precision": "float16",
    "layout": "packed",
    "profiles": [[512, 32]],
    "options": {"level": 3},
    "tensorrt": "11.2.1.2",
    "gpu": ["H200", "9.0", 132],
    "driver": "580",
    "cuda": "13.0",
    "export": [1, "2.11"],
}


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "plans")


def test_a_plan_is_found_again_with_its_facts_and_notes(store: PlanStore) -> None:
    assert store.find(FACTS) is None
    put = store.put(FACTS, b"plan", {"build_seconds": 3.5})
    found = store.find(FACTS)
    assert found == put
    assert found is not None
    assert (found.plan_file.read_bytes(), found.notes) == (b"plan", {"build_seconds": 3.5})
    assert [plan.facts for plan in store.plans()] == [FACTS]


@pytest.mark.parametrize("fact", FACTS)
def test_a_plan_is_not_found_when_anything_that_changes_its_result_is_another(store: PlanStore, fact: str) -> None:
    store.put(FACTS, b"plan", {})
    assert store.find({**FACTS, fact: "another"}) is None


def test_only_its_owner_may_read_or_write_a_plan(store: PlanStore) -> None:
    put = store.put(FACTS, b"plan", {})
    for name in (PLAN_FILE, MANIFEST_FILE):
        assert stat.S_IMODE((put.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(put.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (PLAN_FILE, b"plaN"),
        (PLAN_FILE, b""),
        (MANIFEST_FILE, b"{}"),
        (MANIFEST_FILE, b"not JSON"),
        (MANIFEST_FILE, b"[]"),
    ],
)
def test_a_damaged_plan_is_never_loaded_and_makes_way(store: PlanStore, name: str, content: bytes) -> None:
    folder = store.put(FACTS, b"plan", {}).folder
    (folder / name).write_bytes(content)
    assert store.plans() == []
    assert store.find(FACTS) is None
    assert not folder.exists()


def test_a_plan_kept_under_the_name_of_another_is_never_loaded(store: PlanStore) -> None:
    put = store.put(FACTS, b"plan", {})
    other = {**FACTS, "driver": "590"}
    put.folder.rename(store.root / plan_id(other))
    assert store.find(other) is None


@pytest.mark.parametrize("name", [PLAN_FILE, MANIFEST_FILE, "."])
def test_what_others_may_have_written_is_never_loaded(store: PlanStore, name: str) -> None:
    put = store.put(FACTS, b"plan", {})
    (put.folder / name).chmod(0o722)
    with pytest.raises(EngineError, match="not written by this user alone"):
        store.find(FACTS)
    assert store.plans() == []


def test_a_link_to_a_plan_is_never_loaded(store: PlanStore, tmp_path: Path) -> None:
    put = store.put(FACTS, b"plan", {})
    elsewhere = tmp_path / "elsewhere"
    put.plan_file.rename(elsewhere)
    put.plan_file.symlink_to(elsewhere)
    with pytest.raises(EngineError, match="not written by this user alone"):
        store.find(FACTS)


def test_a_new_plan_takes_the_place_of_the_old_one(store: PlanStore) -> None:
    store.put(FACTS, b"old", {})
    store.put(FACTS, b"new", {})
    found = store.find(FACTS)
    assert found is not None
    assert found.plan_file.read_bytes() == b"new"
    assert len(list(store.root.iterdir())) == 1


def test_what_is_found_out_later_is_kept_beside_the_plan(store: PlanStore) -> None:
    put = store.put(FACTS, b"plan", {"build_seconds": 1})
    store.amend(put, {"gate": {"passed": True}})
    found = store.find(FACTS)
    assert found is not None
    assert found.notes == {"build_seconds": 1, "gate": {"passed": True}}


def test_what_was_measured_of_a_plan_never_vouches_for_another_in_its_place(store: PlanStore) -> None:
    first = store.put(FACTS, b"first", {})
    second = store.put(FACTS, b"second", {"build_seconds": 2})
    assert first.digest != second.digest
    store.amend(first, {"gate": {"passed": True}})
    assert store.find(FACTS) == second


def test_what_is_noted_of_a_damaged_plan_does_not_make_it_whole(store: PlanStore) -> None:
    put = store.put(FACTS, b"plan", {})
    put.plan_file.write_bytes(b"damaged")
    store.amend(put, {"gate": {"passed": True}})
    assert store.find(FACTS) is None


def test_a_full_disk_leaves_nothing_behind_and_names_the_fix(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.root.mkdir()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EngineError, match=r"No space left on device.*free space there, or set cache_dir"):
        store.put(FACTS, b"plan", {})
    assert list(store.root.iterdir()) == []
    store.keep_timings("key", b"timings")
    assert store.recall_timings("key") == b""


def test_timings_are_kept_by_library_and_gpu(store: PlanStore) -> None:
    assert store.recall_timings("11.2 H200") == b""
    store.keep_timings("11.2 H200", b"measured")
    assert store.recall_timings("11.2 H200") == b"measured"
    assert store.recall_timings("11.3 H200") == b""


def _build_once(root: str, marks: Any) -> None:  # noqa: ANN401  # a queue
    store = PlanStore(Path(root))
    with store.building():
        if store.find(FACTS) is None:
            marks.put(os.getpid())
            store.put(FACTS, b"plan", {})


def test_two_processes_that_build_at_once_build_one_plan(store: PlanStore) -> None:
    context = multiprocessing.get_context("spawn")
    marks = context.Queue()
    builders = [context.Process(target=_build_once, args=(str(store.root), marks)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    marks.get(timeout=10)
    assert marks.empty()
    assert store.find(FACTS) is not None


def test_a_manifest_can_be_read_by_people(store: PlanStore) -> None:
    put = store.put(FACTS, b"plan", {})
    assert json.loads((put.folder / MANIFEST_FILE).read_bytes())["facts"] == FACTS
    assert read_plan(put.folder) == put
