import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_cuda import FACTS
from tests.support.plans import write_folder
from tests.support.wait import found_in_time
from worker.engines import trt_builder
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.plans import LAYERS_FILE, PLAN_FILE, PlanStore
from worker.engines.trt_builder import Builder
from worker.engines.trt_order import BuildOrder, check_order, precision_ladder, timings_key
from worker.errors import ConfigError, EngineError

ORDER = BuildOrder("float16", "packed", 512)
PLAN = f"""
import json, pathlib, sys
order = json.load(sys.stdin)
scratch = pathlib.Path(order["scratch"])
print("noise of a library")
print(json.dumps({{"phase": "tactics", "done": 0.5}}), flush=True)
known = scratch / "timings"
(scratch / {PLAN_FILE!r}).write_bytes(b"plan")
(scratch / {LAYERS_FILE!r}).write_bytes(b"layers")
known.write_bytes((known.read_bytes() if known.exists() else b"") + b"more;")
print(json.dumps({{"result": {{"fused_attention": 2}}}}))
"""
_CHILD_THAT = """
from worker.engines import trt_child
def build_in(order, say):
    {}
trt_child.build_in = build_in
raise SystemExit(trt_child.main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return write_folder(tmp_path / "model")


def _builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, seconds: float = 60.0) -> Builder:
    monkeypatch.setattr(trt_builder, "_CHILD", (sys.executable, "-c", program))
    return Builder(PlanStore(tmp_path / "plans"), "11.2.1.2", FACTS, seconds=seconds)


def test_what_the_process_leaves_is_kept_with_its_notes(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = _builder(tmp_path, monkeypatch, PLAN)
    assert builder.find(folder, ORDER) is None
    built = builder.build(folder, ORDER)
    assert built.plan_file.read_bytes() == b"plan"
    assert (built.folder / LAYERS_FILE).read_bytes() == b"layers"
    assert built.notes["fused_attention"] == 2
    assert isinstance(built.notes["build_seconds"], float)
    monkeypatch.setattr(trt_builder, "_CHILD", ("false",))
    assert builder.build(folder, ORDER) == built


def test_what_a_killed_builder_left_is_swept_up_by_the_next_and_what_may_be_at_work_is_not(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = _builder(tmp_path, monkeypatch, PLAN, seconds=60.0)
    left, busy = builder.store.root / ".build.left", builder.store.root / ".build.busy"
    for each in (left, busy):
        each.mkdir(parents=True)
        (each / PLAN_FILE).write_bytes(b"half")
    an_hour_ago = builder.clock.wall() - 3600
    os.utime(left, (an_hour_ago, an_hour_ago))
    builder.build(folder, ORDER)
    assert (False, True) == (left.exists(), busy.exists())


def test_progress_is_passed_on_and_noise_is_not(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, float]] = []
    monkeypatch.setattr(trt_builder, "_CHILD", (sys.executable, "-c", PLAN))
    Builder(PlanStore(tmp_path / "plans"), "11", FACTS, lambda *about: said.append(about)).build(folder, ORDER)
    assert said == [("tactics", 0.5)]


def test_measured_kernels_are_handed_to_the_next_build(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = _builder(tmp_path, monkeypatch, PLAN)
    facts = builder.build(folder, ORDER).facts
    builder.build(folder, ORDER, again=True)
    key = f"{facts['tensorrt']} {facts['gpu']} {facts['driver']}"
    assert builder.store.recall_timings(key) == b"more;more;"


def test_a_process_that_hangs_is_ended_at_the_limit(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "pid"
    # It hangs before or after it has said who it is, whichever comes first.
    hanging = f"import os, pathlib, signal; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); signal.pause()"
    builder = _builder(tmp_path, monkeypatch, hanging, seconds=0.5)
    with pytest.raises(EngineError, match=r"not built within 0\.5 s; fewer profiles take less time"):
        builder.build(folder, ORDER)
    assert builder.find(folder, ORDER) is None
    assert [path.name for path in builder.store.root.iterdir()] == [".building"]
    assert not (told.exists() and told.read_text() and _is_running(int(told.read_text())))
    # Whoever comes next may build at once.
    assert _builder(tmp_path, monkeypatch, PLAN).build(folder, ORDER).plan_file.read_bytes() == b"plan"


_ASKING = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdin.write("{}")
child.stdin.close()
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_a_build_ends_with_the_process_that_asked_for_it() -> None:
    """Killed, that one frees the lock, and the next would build beside a process that nobody waits for."""
    building = _CHILD_THAT.format("import signal; say({'phase': 'tactics', 'done': 0.0}); signal.pause()")
    with subprocess.Popen([sys.executable, "-c", _ASKING, building], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        child = int(asking.stdout.readline())
        assert _is_running(child)
        asking.kill()
    found_in_time(lambda: not _is_running(child))


def _is_running(process: int) -> bool:
    """Whether it is there, and not only what is left of it until somebody asks how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _build_marked(root: str, folder: str, marks: str) -> None:
    """Build in a process of its own; every run of the building process leaves a mark."""
    mark = f"import os, pathlib; pathlib.Path({marks!r}, str(os.getpid())).touch()"
    trt_builder._CHILD = (sys.executable, "-c", f"{mark}\n{PLAN}")  # type: ignore[misc]  # for this process alone
    Builder(PlanStore(Path(root)), "11.2.1.2", FACTS).build(open_folder(Path(folder)), ORDER)


def test_two_workers_that_start_at_once_build_one_plan_between_them(folder: ModelFolder, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("spawn")
    places = (str(tmp_path / "plans"), str(folder.path), str(marks))
    workers = [context.Process(target=_build_marked, args=places) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list(marks.iterdir())) == 1
    assert Builder(PlanStore(tmp_path / "plans"), "11.2.1.2", FACTS).find(folder, ORDER) is not None


def test_a_disk_that_is_full_when_the_plan_is_to_be_kept_leaves_none_and_names_the_fix(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The minutes are lost; the error says what to do, and the measured kernels, where they found room, are kept."""
    builder = _builder(tmp_path, monkeypatch, PLAN)
    real = os.fsync

    def full(handle: int) -> None:
        if builder.store.recall_timings(_key(builder)):
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EngineError, match=r"the engine cannot be kept \(No space left .*; free space there, or set"):
        builder.build(folder, ORDER)
    assert builder.find(folder, ORDER) is None
    assert not [path for path in builder.store.root.iterdir() if path.name.startswith((".new.", ".build."))]


def _key(builder: Builder) -> str:
    return timings_key({"tensorrt": builder.tensorrt, "gpu": [FACTS.name, "9.0", 132], "driver": FACTS.driver})


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ('import json; print(json.dumps({"failure": "tensorrt built nothing"})); raise SystemExit(1)', "built nothing"),
        ("raise SystemExit(3)", r"died \(exit code 3\)"),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", "SIGKILL, perhaps for lack of memory"),
        ("pass", "left none behind"),
        (
            _CHILD_THAT.format("raise TypeError('factory function returned nullptr')"),
            r"cannot be built \(TypeError: factory function returned nullptr\); standard error says where",
        ),
        (_CHILD_THAT.format("raise MemoryError"), "not enough memory to build the plan; fewer or smaller profiles"),
        (
            _CHILD_THAT.format("raise OSError(28, 'No space left')"),
            "cannot be written .*; free space, or set cache_dir",
        ),
    ],
)
def test_a_process_that_fails_or_dies_leaves_no_plan_and_says_how(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, error: str
) -> None:
    builder = _builder(tmp_path, monkeypatch, program)
    with pytest.raises(EngineError, match=error):
        builder.build(folder, ORDER)
    assert [path.name for path in builder.store.root.iterdir()] == [".building"]


@pytest.mark.parametrize("call", ["tempfile.mkdtemp", "pathlib.Path.write_bytes"])
def test_a_disk_that_is_full_before_the_build_is_an_error_that_names_the_fix(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    builder = _builder(tmp_path, monkeypatch, PLAN)
    builder.build(folder, ORDER)
    before = sorted(path.name for path in builder.store.root.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(call, full)
        with pytest.raises(
            EngineError, match=r"nothing can be built there \(No space left .*; free space, or set cache"
        ):
            builder.build(folder, ORDER, again=True)
    assert sorted(path.name for path in builder.store.root.iterdir()) == before


def test_a_folder_that_cannot_be_locked_is_an_error_that_names_the_fix(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(EngineError, match=r"cannot be locked \(No locks available\); set another cache_dir"):
        _builder(tmp_path, monkeypatch, PLAN).build(folder, ORDER)


def test_the_real_process_says_what_it_lacks(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch, or with a weights file that holds nothing: a sentence either way, no traceback."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    builder = Builder(PlanStore(tmp_path / "plans"), "11", FACTS)
    with pytest.raises(EngineError, match=r"needs packages that are not installed|cannot load this model"):
        builder.build(folder, ORDER)


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (BuildOrder("int8"), "precision: the tensorrt engine computes in"),
        (BuildOrder("float16", "ragged"), "layout: expected padded, lengths, packed"),
        (BuildOrder("float8", "padded"), "layout: float8 is built with"),
        (BuildOrder("float32", "packed"), "layout: fused attention computes in 16 bits"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_before_anything_starts(
    folder: ModelFolder, order: BuildOrder, error: str
) -> None:
    with pytest.raises(ConfigError, match=error):
        check_order(order, folder)


@pytest.mark.parametrize("version", ["10.15.1.29", "10.16.1.11"])
@pytest.mark.parametrize("layout", ["lengths", "packed"])
@pytest.mark.parametrize("precision", ["float16", "float8"])
def test_a_layout_that_the_library_is_too_old_for_is_refused_before_anything_starts(
    folder: ModelFolder, tmp_path: Path, version: str, layout: str, precision: str
) -> None:
    builder = Builder(PlanStore(tmp_path / "plans"), version, FACTS)
    error = rf"layout: {layout} needs TensorRT 11 or later, and this is {version}: use layout padded, or a newer one"
    for call in (builder.find, builder.build):
        with pytest.raises(ConfigError, match=error):
            call(folder, BuildOrder(precision, layout))
    assert builder.find(folder, BuildOrder("float16", "padded")) is None
    assert (
        Builder(PlanStore(tmp_path / "plans"), "11.0.0.114", FACTS).find(folder, BuildOrder(precision, layout)) is None
    )


def test_a_family_that_is_only_built_from_graphs_says_so(folder: ModelFolder) -> None:
    config = folder.path / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"deberta-v2"'))
    with pytest.raises(EngineError, match="use layout padded in float16 or bfloat16"):
        check_order(BuildOrder("float16", "packed"), folder)
    check_order(BuildOrder("float16", "padded"), folder)


@pytest.mark.parametrize(
    ("model_type", "words", "first"),
    [("bert", 30_000, "float16"), ("deberta-v2", 128_100, "float16"), ("deberta-v2", 251_000, "bfloat16"),
     ("modernbert", 50_368, "bfloat16")],
)  # fmt: skip
def test_the_ladder_begins_where_the_family_is_known_to_agree(
    folder: ModelFolder, model_type: str, words: int, first: str
) -> None:
    config = folder.path / "config.json"
    config.write_text(config.read_text().replace('"bert"', f'"{model_type}", "vocab_size": {words}'))
    ladder = precision_ladder(folder)
    assert ladder[0] == first
    assert ladder[-1] == "float32"
