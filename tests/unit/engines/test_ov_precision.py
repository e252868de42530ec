from collections.abc import Callable
from pathlib import Path

import pytest

from worker.engines import ov_machine
from worker.engines.ov_precision import GROUP, Arithmetic, arithmetic, ladder
from worker.errors import ConfigError

BOTH = ("BF16", "FP32")
BF16, PLAIN = True, False


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool], None]:
    """Makes it one with these flags, and with bfloat16 or not."""
    monkeypatch.setattr(ov_machine, "_CPU_FILE", tmp_path / "cpuinfo")

    def become(flags: str, has_bfloat16: bool) -> None:  # told by name above
        monkeypatch.setattr(ov_machine, "has_fast_bfloat16", lambda: has_bfloat16)
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")

    become("fpu", PLAIN)
    return become


@pytest.mark.parametrize(
    ("flags", "has_bfloat16", "is_8bit", "expected"),
    [
        ("fpu avx512_vnni", PLAIN, True, ("int8", "float32")),
        ("fpu avx_vnni", PLAIN, True, ("int8", "float32")),
        ("fpu avx512_vnni", PLAIN, False, ("float32",)),
        ("fpu avx512f", PLAIN, True, ("float32",)),
        ("fpu avx512_vnni avx512_bf16", BF16, True, ("bfloat16", "float32")),
    ],
)
def test_8bit_products_are_for_a_cpu_without_bfloat16_and_weights_that_are_such(
    machine: Callable[[str, bool], None], flags: str, has_bfloat16: bool, is_8bit: bool, expected: tuple[str, ...]
) -> None:
    machine(flags, has_bfloat16)
    assert expected == ladder(has_8bit_weights=is_8bit)


def test_a_machine_that_says_nothing_of_its_cpu_has_no_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov_machine, "_CPU_FILE", tmp_path / "missing")
    assert frozenset() == ov_machine.cpu_flags()


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("wanted", "capabilities", "is_8bit", "expected"),
    [
        ("auto", ("FP32",), True, Arithmetic("float32", "float32")),
        ("int8", BOTH, True, Arithmetic("int8", "bfloat16", GROUP)),
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
