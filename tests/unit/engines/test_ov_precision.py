from pathlib import Path

import pytest

from worker.engines import ov_machine
from worker.engines.ov_precision import GROUP, Arithmetic, arithmetic, ladder
from worker.errors import ConfigError

BOTH = ("BF16", "FP32")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CPU with VNNI and bfloat16, whose flags may be written anew."""
    monkeypatch.setattr(ov_machine, "_CPU_FILE", tmp_path / "cpuinfo")
    monkeypatch.setattr(ov_machine, "has_fast_bfloat16", lambda: True)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_vnni avx512_bf16\n\nprocessor\t: 1\n")
    return tmp_path / "cpuinfo"


def test_8bit_products_come_first_where_they_are_the_fastest_and_the_weights_are_such(machine: Path) -> None:
    assert ("int8", "bfloat16", "float32") == ladder(has_8bit_weights=True)
    assert ("bfloat16", "float32") == ladder(has_8bit_weights=False)
    machine.write_text("flags\t\t: fpu avx_vnni\n")
    assert "int8" == ladder(has_8bit_weights=True)[0]


@pytest.mark.parametrize("flags", ["fpu avx512f", "fpu avx512_vnni amx_tile amx_int8", ""])
def test_8bit_products_are_not_chosen_where_they_were_not_found_faster(machine: Path, flags: str) -> None:
    machine.write_text(f"flags\t\t: {flags}\n")
    assert ("bfloat16", "float32") == ladder(has_8bit_weights=True)


def test_a_machine_that_says_nothing_of_its_cpu_has_no_flags(machine: Path) -> None:
    machine.unlink()
    assert ("bfloat16", "float32") == ladder(has_8bit_weights=True)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("wanted", "capabilities", "is_8bit", "expected"),
    [
        ("auto", BOTH, True, Arithmetic("int8", "bfloat16", GROUP)),
        ("auto", BOTH, False, Arithmetic("bfloat16", "bfloat16")),
        ("int8", ("FP32",), True, Arithmetic("int8", "float32", GROUP)),
        ("float32", BOTH, True, Arithmetic("float32", "float32")),
    ],
)
def test_what_is_asked_for_is_computed_in(
    wanted: str, capabilities: tuple[str, ...], is_8bit: bool, expected: Arithmetic
) -> None:
    assert expected == arithmetic(wanted, capabilities, has_8bit_weights=is_8bit)


@pytest.mark.parametrize(
    ("wanted", "is_8bit"), [("bfloat16", True), ("float16", True), ("float8", True), ("int8", False)]
)
def test_what_the_cpu_or_the_model_has_not_is_refused_by_key(wanted: str, is_8bit: bool) -> None:
    with pytest.raises(ConfigError, match="precision: "):
        arithmetic(wanted, ("FP32",), has_8bit_weights=is_8bit)
