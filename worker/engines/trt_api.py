"""The TensorRT library: found or not, which version, and its calls with every answer looked at."""

import contextlib
import importlib
import importlib.util
import threading
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import structlog

from worker.errors import EngineError

Api = Any
"""The module `tensorrt`; optional, so untyped to mypy."""

INSTALL_HINT: Final = 'pip install "nli-stream-worker[tensorrt]"'
_MODULES: Final = ("tensorrt", "tensorrt_bindings")
"""The package, and what it wraps: where the libraries were installed by hand there is only the second."""
_OLDEST: Final = (10, 15)

Made = TypeVar("Made")

_log = structlog.get_logger(__name__)


def has_tensorrt() -> bool:
    """Whether the library's Python module is installed; imports nothing."""
    return _module_name() is not None


def load_api() -> Api:
    """The module.

    Raises:
        EngineError: it is not installed, cannot be loaded, or is too old.
    """
    name = _module_name()
    if name is None:
        raise EngineError(f"the tensorrt engine needs packages that are not installed: {INSTALL_HINT}")
    try:
        api = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"tensorrt is installed but cannot be loaded ({type(error).__name__}): its libraries are not on "
            f"LD_LIBRARY_PATH, or the driver is older than it needs; {INSTALL_HINT} installs both in one version"
        ) from error
    version = tuple(int(part) for part in str(api.__version__).split(".")[:2])
    if version < _OLDEST:
        raise EngineError(f"tensorrt {api.__version__} is too old: {INSTALL_HINT}")
    return api


def make_logger(api: Api) -> Any:  # noqa: ANN401  # the library is not typed for us
    """A logger for the library: what it warns of goes into our log; `complaint()` is the last error in a thread."""
    lock = threading.Lock()
    of_thread = threading.local()

    class Logger(api.ILogger):  # type: ignore[misc]  # the library is not typed for us
        """Called from any thread of the library, and never to raise."""

        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def complaint(self) -> str:
            """The last error the library had in this thread since this was last asked; `""` for none."""
            said: str = getattr(of_thread, "said", "")
            of_thread.said = ""
            return said

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401  # as above
            """Take one line."""
            if severity in {api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR}:
                of_thread.said = str(msg)[:400]
            if severity in {api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR, api.ILogger.WARNING}:
                with lock:
                    _log.warning("tensorrt.reported", severity=str(severity), message=str(msg)[:400])

    return Logger()


def checked(made: Made | None, what: str) -> Made:
    """What a call of the library made.

    Raises:
        EngineError: it made nothing.
    """
    if made is None or made is False:
        raise EngineError(f"tensorrt refused: {what}; the log says why")
    return made


def made_on_gpu(api: Api, kind: str, logger: Any) -> Any:  # noqa: ANN401  # as above
    """A `Builder` or a `Runtime`: what the library makes only where it can use the GPU.

    Raises:
        EngineError: it cannot.
    """
    try:
        made = getattr(api, kind)(logger)
    except (TypeError, RuntimeError) as error:
        # So the bindings say that the library gave them nothing; it logs the reason itself.
        raise EngineError(
            f"tensorrt {api.__version__} cannot use this machine's GPU, the log says why: its driver is missing or "
            "older than this version needs, or the GPU has no memory left; renew the driver, or name another engine"
        ) from error
    return checked(made, f"a {kind.lower()}")


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Within it, what the bindings raise of their own accord is told as an error of the engine.

    Raises:
        EngineError: they did.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as error:
        said = f"{type(error).__name__}: {error}".strip(": ")[:400]
        raise EngineError(f"tensorrt refused: {what} ({said}); the log says more, another engine may do") from error


def _module_name() -> str | None:
    return next((name for name in _MODULES if importlib.util.find_spec(name) is not None), None)
