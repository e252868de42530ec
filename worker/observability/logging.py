"""What the worker says of itself: one JSON object per line in production, readable lines on a terminal.

Nothing here lets a text through. A traceback is reduced to the types of its exceptions and the places they passed;
only our own errors keep their message, because it comes from our own templates. Local variables, and messages of
foreign exceptions, may quote what they were handed.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.errors import WorkerError

LogForm = Literal["auto", "json", "console"]

# Libraries that are never handed a message's text: what they say is shown as it is.
_TEXT_FREE_LIBRARIES = frozenset({"confluent_kafka", "huggingface_hub", "jgo", "urllib3", "watchfiles"})
_MAX_FRAMES = 20
_MAX_CHAINED = 5

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def configure_logging(level: str = "info", form: LogForm = "auto", stream: TextIO | None = None) -> None:
    """Send every log of this process to `stream` (standard error) from `level` up; other libraries' from warning up.

    `auto` is readable where `stream` is a terminal, else JSON. May be called again.
    """
    stream = stream or sys.stderr
    readable = form == "console" or (form == "auto" and stream.isatty())
    structlog.configure(
        processors=[*_shared_processors(), *_renderers(readable=readable, colors=stream.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(_level_number(level)),
        context_class=dict,
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _route_libraries(max(logging.WARNING, _level_number(level)))


def reduced_exception(error: BaseException) -> dict[str, object]:
    """What may be said of an exception: its type, the places it passed, its causes; a message only if it is ours."""
    chain: list[dict[str, object]] = []
    current: BaseException | None = error
    while current is not None and len(chain) < _MAX_CHAINED:
        chain.append(_one_exception(current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    first = chain[0]
    if chain[1:]:
        first["causes"] = chain[1:]
    return first


def _one_exception(error: BaseException) -> dict[str, object]:
    frames = traceback.extract_tb(error.__traceback__, limit=-_MAX_FRAMES)
    found: dict[str, object] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, WorkerError):
        found["message"] = str(error)
    return found


def _reduce_exceptions(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info`, and any exception given as a value, by what may be said of it."""
    raised = _exception_of(event.pop("exc_info", None))
    if raised is not None:
        event["exception"] = reduced_exception(raised)
    for key, value in event.items():
        if isinstance(value, BaseException):
            event[key] = reduced_exception(value)
    return event


def _exception_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return next((part for part in exc_info if isinstance(part, BaseException)), None)
    return sys.exception() if exc_info else None


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _reduce_exceptions,
    ]


def _renderers(*, readable: bool, colors: bool) -> list[Processor]:
    if not readable:
        return [_as_json_line]
    return [_exception_as_text, structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time", sort_keys=False)]


def _exception_as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if isinstance(event.get("exception"), dict):
        event["exception"] = orjson.dumps(event["exception"], option=orjson.OPT_INDENT_2).decode()
    return event


def _as_json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return orjson.dumps(dict(event), default=_type_name, option=orjson.OPT_NON_STR_KEYS).decode()


def _type_name(value: object) -> str:
    return f"<{type(value).__qualname__}>"


def _level_number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _route_libraries(level: int) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler(structlog.get_logger))
    root.setLevel(level)


_ASIDE = "opentelemetry."
"""What goes wrong in there costs spans and never a record: a warning, whatever it is called there."""


class _LibraryHandler(logging.Handler):
    """Hands what other libraries log to our own log, without the values they put into their sentences."""

    def __init__(self, logger_of: Callable[[], structlog.typing.FilteringBoundLogger]) -> None:
        super().__init__()
        self._logger_of = logger_of

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record under the event `library.logged`."""
        values: Mapping[str, object] = {
            "library": record.name,
            "where": f"{record.module}:{record.lineno}",
            "message": _speakable(record),
        }
        exception = _exception_of(record.exc_info)
        if exception is not None:
            values = {**values, "exception": reduced_exception(exception)}
        level = min(record.levelno, logging.WARNING) if record.name.startswith(_ASIDE) else record.levelno
        self._logger_of().log(level, "library.logged", **values)


def _speakable(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] in _TEXT_FREE_LIBRARIES:
        return record.getMessage()
    # With arguments the sentence is the library's own constant; without, it may have been filled in already.
    return str(record.msg) if record.args else "withheld"
