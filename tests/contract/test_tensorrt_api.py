"""The fake TensorRT has no name that the real one lacks. Needs the real libraries, no GPU.

Where only the native libraries and the bindings are there, name the folder of the former in LD_LIBRARY_PATH.
"""

import ctypes
import importlib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_tensorrt

pytestmark = pytest.mark.tensorrt

_LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
_OF_THE_FAKE = {"State", "Tensor", "Layer", "TimingCache", "Path"}
_INSIDE_THE_FAKE = {"profiles", "flags", "content", "layers", "shapes", "read", "kind", "pointer", "count"}
_REAL_NAMES = {"TimingCache": "ITimingCache"}
_LAYERS = {"shuffle": "IShuffleLayer", "normalization": "INormalizationLayer", "attention": "IAttention"}


@pytest.fixture(scope="module")
def real() -> Any:  # noqa: ANN401  # the library is not typed for us
    """The real module; nothing of it that needs a GPU may be made."""
    name = next((name for name in ("tensorrt", "tensorrt_bindings") if importlib.util.find_spec(name)), None)
    if name is None:
        pytest.skip("the TensorRT bindings are not installed")
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        for library in _LIBRARIES:
            if folder and (Path(folder) / library).is_file():
                ctypes.CDLL(str(Path(folder) / library), ctypes.RTLD_GLOBAL)
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        pytest.skip(f"the TensorRT libraries cannot be loaded ({type(error).__name__})")


def _fake_classes() -> dict[str, type]:
    return {
        name: kind
        for name, kind in vars(fake_tensorrt).items()
        if isinstance(kind, type) and kind.__module__.startswith(fake_tensorrt.__name__) and name not in _OF_THE_FAKE
        if not name.startswith("_")
    }


def test_every_class_call_and_value_of_the_fake_is_there(real: Any) -> None:  # noqa: ANN401  # as above
    missing = [
        f"{name}.{member}"
        for name, kind in _fake_classes().items()
        for member in vars(kind)
        if not member.startswith("_") and member not in _INSIDE_THE_FAKE
        if not hasattr(getattr(real, _REAL_NAMES.get(name, name), None), member)
    ]
    assert missing == []
    assert hasattr(real.ITimingCache, "serialize")


def test_every_property_that_layers_of_the_fake_take_is_there(real: Any) -> None:  # noqa: ANN401  # as above
    for kind, names in fake_tensorrt.Layer._ALLOWED.items():
        for name in names:
            assert hasattr(getattr(real, _LAYERS[kind]), name), f"{_LAYERS[kind]}.{name}"
    for name in ("name", "dtype", "shape"):
        assert hasattr(real.ITensor, name)


def test_calls_take_as_many_arguments_as_the_fake_is_given(real: Any) -> None:  # noqa: ANN401  # as above
    compared = 0
    for name, kind in _fake_classes().items():
        for member, call in vars(kind).items():
            said = getattr(getattr(getattr(real, name, None), member, None), "__doc__", None) or ""
            signature = re.match(rf"{member}\(self[^,)]*(.*?)\) ->", said)
            if member.startswith("_") or signature is None or not callable(call):
                continue
            taken = len(re.findall(r",\s*\w+:", signature[1]))
            mine = call.__code__.co_argcount + call.__code__.co_kwonlyargcount - 1
            assert mine <= taken, f"{name}.{member} takes {taken} arguments, the fake {mine}"
            compared += 1
    assert compared > 15


def test_our_own_logger_and_monitor_can_be_made_without_a_gpu(real: Any) -> None:  # noqa: ANN401  # as above
    from worker.engines.trt_api import make_logger  # noqa: PLC0415  # with the library at hand
    from worker.engines.trt_build import _creation_flags, _make_monitor  # noqa: PLC0415  # as above

    logger = make_logger(real)
    logger.log(real.ILogger.INFO, "nothing to see")
    said: list[tuple[str, float]] = []
    monitor = _make_monitor(real, lambda phase, done: said.append((phase, done)))
    monitor.phase_start("build", None, 2)
    assert monitor.step_complete("build", 0) is True
    assert said == [("build", 0.0), ("build", 0.5)]
    assert _creation_flags(real) == 0


def test_shapes_and_orders_of_axes_are_made_of_tuples(real: Any) -> None:  # noqa: ANN401  # as above
    assert list(real.Permutation((0, 2, 1, 3)))[:4] == [0, 2, 1, 3]
    assert tuple(real.Dims((0, 0, -1))) == (0, 0, -1)
    assert tuple(real.Dims(())) == ()


def test_memory_of_numpy_becomes_weights_of_any_type(real: Any) -> None:  # noqa: ANN401  # as above
    import numpy as np  # noqa: PLC0415  # only here

    values = np.zeros(6, dtype=np.uint16)
    weights = real.Weights(real.DataType.BF16, values.ctypes.data, values.size)
    assert (weights.size, weights.nbytes) == (6, 12)
