import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.batches import batch_of
from tests.support.tiny_openvino import TinyModel, write_tiny_model
from worker.engines import export, load, ov, ov_machine, pytorch, trt_api
from worker.engines.load import EngineChoice, load_engine
from worker.engines.ov import OpenVinoOptions
from worker.engines.ov_precision import Arithmetic
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import ConfigError, EngineError


def _choice(tmp_path: Path, tiny: TinyModel | None = None, **chosen: str) -> EngineChoice:
    folder = write_tiny_model(tmp_path / "model", tiny)
    return EngineChoice(model=str(folder), cache_dir=tmp_path / "cache", **chosen)  # type: ignore[arg-type]  # all strings


def test_the_bundled_model_passes_the_gate(tmp_path: Path) -> None:
    loaded = load_engine(EngineChoice(cache_dir=tmp_path))
    stamp = loaded.engine.info.stamp
    assert (stamp.name, stamp.engine) == ("minilm-nli", "openvino")
    assert loaded.is_verified
    assert loaded.gate is not None
    assert (loaded.gate.passed, loaded.gate.label_flips) == (True, 0)
    assert loaded.tokenizer_file == BUNDLED_FOLDER / "tokenizer.json"
    loaded.engine.close()


def test_the_fake_engine_needs_no_model_and_brings_the_bundled_tokenizer() -> None:
    loaded = load_engine(EngineChoice(model="no/such/model", engine="fake"))
    assert loaded.engine.info.stamp.engine == "fake"
    assert loaded.tokenizer_file.is_file()


def test_a_folder_stored_for_openvino_is_loaded_and_says_why(tmp_path: Path) -> None:
    loaded = load_engine(_choice(tmp_path, precision="float32"))
    assert loaded.why == "openvino, float32: the model is stored for it"
    assert loaded.engine.info.max_pair_tokens == 64
    assert loaded.engine.score(batch_of([5, 6, 7])).logits.shape == (1, 2)


def test_the_gate_runs_once_per_model_engine_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = _choice(tmp_path, precision="float32")
    first = load_engine(choice)
    monkeypatch.setattr(load, "verify", lambda *_, **__: pytest.fail("measured again"))
    assert load_engine(choice).gate == first.gate


def test_a_changed_model_goes_through_the_gate_again(tmp_path: Path) -> None:
    choice = _choice(tmp_path, precision="float32")
    load_engine(choice)
    write_tiny_model(tmp_path / "model", TinyModel(leaks_between_pairs=True))
    with pytest.raises(EngineError, match="does not agree"):
        load_engine(choice)


@pytest.mark.parametrize(
    ("tiny", "reason"),
    [
        (TinyModel(golden_offset=0.1), "logits differ from float32 by 0.1, more than 0.001"),
        (TinyModel(leaks_between_pairs=True), "logits differ between batches"),
        (TinyModel(is_8bit=True, golden_offset=20.0), "labels differ from float32"),
    ],
)
def test_an_engine_that_does_not_agree_is_never_handed_over(tmp_path: Path, tiny: TinyModel, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        load_engine(_choice(tmp_path, tiny, precision="float32"))


@pytest.mark.parametrize("error", [RuntimeError("it broke"), ValueError("it broke")])
def test_an_engine_that_cannot_be_measured_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(load, "verify", fail)
    with pytest.raises(EngineError, match=r"cannot score the golden pairs \(it broke\); use precision: float32"):
        load_engine(_choice(tmp_path, precision="float32"))


def test_a_float32_model_without_golden_logits_is_its_own_reference_and_marked(tmp_path: Path) -> None:
    loaded = load_engine(_choice(tmp_path, TinyModel(golden_offset=None), precision="float32"))
    assert not loaded.is_verified
    assert "unverified" in loaded.why


def test_without_golden_logits_dependence_on_the_batch_is_still_found(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="between batches"):
        load_engine(_choice(tmp_path, TinyModel(golden_offset=None, leaks_between_pairs=True), precision="float32"))


def test_8bit_weights_without_golden_logits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"8-bit weights and without golden\.json"):
        load_engine(_choice(tmp_path, TinyModel(is_8bit=True, golden_offset=None)))


def test_8bit_weights_are_recognised_and_pass_by_their_labels(tmp_path: Path) -> None:
    loaded = load_engine(_choice(tmp_path, TinyModel(is_8bit=True, golden_offset=0.005), precision="float32"))
    assert loaded.engine.info.details["weights"] == "8-bit"


def test_where_bfloat16_does_not_agree_float32_is_used_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov_machine, "has_fast_bfloat16", lambda: True)
    choose = ov._arithmetic

    def refuse_bfloat16(options: OpenVinoOptions, *, has_8bit_weights: bool) -> Arithmetic:
        if options.precision == "bfloat16":
            raise EngineError("refused for the test")
        return choose(options, has_8bit_weights=has_8bit_weights)

    monkeypatch.setattr(ov, "_arithmetic", refuse_bfloat16)
    with capture_logs() as logs:
        loaded = load_engine(_choice(tmp_path))
    assert loaded.engine.info.stamp.precision == "float32"
    assert [entry["event"] for entry in logs] == ["engine.refused", "engine.loaded"]
    with pytest.raises(EngineError, match="refused for the test"):
        load_engine(EngineChoice(model=str(tmp_path / "model"), cache_dir=tmp_path / "cache", strict=True))


def test_safetensors_alone_without_the_export_extra_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = _choice(tmp_path)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(export, "can_export", lambda: False)
    monkeypatch.setattr(pytorch, "has_torch", lambda: False)
    with pytest.raises(EngineError, match=r'pip install "nli-stream-worker\[export\]"'):
        load_engine(choice)


def test_a_folder_without_any_weights_says_what_it_looked_for(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(BUNDLED_FOLDER / name, tmp_path / name)
    with pytest.raises(EngineError, match=r"no openvino_model\.xml, model\.onnx or model\.safetensors"):
        load_engine(EngineChoice(model=str(tmp_path), cache_dir=tmp_path / "cache"))


def test_the_pytorch_engine_without_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "has_torch", lambda: False)
    with pytest.raises(EngineError, match=r'pip install "nli-stream-worker\[gpu\]"'):
        load_engine(_choice(tmp_path, engine="pytorch"))


def test_the_tensorrt_engine_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_api, "_MODULES", ("no_such_module",))
    with pytest.raises(EngineError, match=r'pip install "nli-stream-worker\[tensorrt\]"'):
        load_engine(_choice(tmp_path, engine="tensorrt"))


@pytest.mark.parametrize(
    ("choice", "key"),
    [
        (EngineChoice(engine="onnx"), "engine: "),
        (EngineChoice(precision="fp16"), "precision: "),
        (EngineChoice(precision="float8"), "precision: "),
        (EngineChoice(engine="pytorch"), "engine: the bundled model"),
        (EngineChoice(engine="tensorrt"), "engine: the bundled model"),
        (EngineChoice(engine="gliclass"), "engine: the bundled model"),
        (EngineChoice(model="org/model@main"), "model: "),
    ],
)
def test_an_impossible_choice_names_its_key(choice: EngineChoice, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_engine(choice)
