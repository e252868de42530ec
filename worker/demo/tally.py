"""What comes back in a demo: predictions and dead letters, counted as a subscriber sees them."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from worker.errors import FatalError
from worker.messages.outbound import PredictionMessage
from worker.types import JsonValue, LabelScore, Record

DEAD_LETTER_SUFFIX = ".dlq"
PREDICTION_SUFFIX = ".predictions"

_ERROR_CODE = "nli-error-code"
_SOURCE_HEADERS = ("__connect.errors.topic", "__connect.errors.partition", "__connect.errors.offset")
_RECENT = 40
_SHOWN_BYTES = 200

Place = tuple[str, int, int]
"""Topic, partition and offset of an input record."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event."""

    id: str
    source: Place
    text: str = ""
    """Of a dead letter: the beginning of its value, as far as it is text."""
    selected: tuple[LabelScore, ...] = ()
    label: str | None = None
    """The winner, or the label of those that have none; None in multi mode."""
    best: LabelScore | None = None
    """The highest score, selected or not."""
    schema: str = ""
    version: int = 0
    engine: str = ""
    precision: str = ""
    code: str | None = None
    """The error code of a dead letter; None for a prediction."""


def read_outcome(record: Record) -> Outcome:
    """What a record of a prediction or dead letter topic says.

    Raises:
        FatalError: it is neither.
    """
    try:
        return _dead_letter(record) if record.topic.endswith(DEAD_LETTER_SUFFIX) else _prediction(record)
    except (ValidationError, KeyError, ValueError) as error:
        where = f"{record.topic}/{record.partition}/{record.offset}"
        raise FatalError(f"{where} is not a {'dead letter' if 'dlq' in record.topic else 'prediction'}") from error


def _prediction(record: Record) -> Outcome:
    message = PredictionMessage.model_validate_json(record.value or b"")
    scores = tuple(LabelScore(each.label, each.score) for each in message.scores)
    text = (message.event or {}).get("text")
    return Outcome(
        id=message.id,
        source=(message.source.topic, message.source.partition, message.source.offset),
        text=text if isinstance(text, str) else "",
        selected=tuple(each for each in scores if each.label in message.selected),
        label=message.label,
        best=max(scores, key=lambda each: each.score, default=None),
        schema=message.schema_.name,
        version=message.schema_.version,
        engine=message.model.engine,
        precision=message.model.precision,
    )


def _dead_letter(record: Record) -> Outcome:
    headers = {name: (value or b"").decode() for name, value in record.headers}
    topic, partition, offset = (headers[name] for name in _SOURCE_HEADERS)
    return Outcome(
        id=f"{topic}/{partition}/{offset}",
        source=(topic, int(partition), int(offset)),
        text=(record.value or b"")[:_SHOWN_BYTES].decode(errors="replace"),
        code=headers[_ERROR_CODE],
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """How a demo stands at one moment."""

    expected: int
    """How many events there will be in all."""
    sent: int
    predictions: int
    dead_letters: int
    per_second: float
    recent: tuple[Outcome, ...]
    """The latest outcomes, newest last."""
    in_force: Mapping[str, int]
    """Label schema -> the version that holds now."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How a demo went."""

    input: int
    predictions: int
    dead_letters: int
    distinct: int
    """Input records of which something came back; fewer than came back where something came twice."""
    codes: Mapping[str, int]
    """Error code -> dead letters."""
    versions: Mapping[str, tuple[int, ...]]
    """Label schema -> versions, in the order in which predictions brought them."""
    broker: str
    delivery: str
    engine: str
    precision: str
    seconds: float
    """From the first event sent to the last one back."""
    start_seconds: Mapping[str, float]
    """What came before, `broker`, `model` and `group` -> how long that took."""

    @property
    def is_complete(self) -> bool:
        """Whether every event came back as one prediction or one dead letter."""
        return self.predictions + self.dead_letters == self.input == self.distinct

    @property
    def messages_per_second(self) -> float:
        """Events per second from the first one sent to the last one back."""
        return self.input / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, JsonValue]:
        """The summary as one JSON object."""
        return {
            "input": self.input,
            "predictions": self.predictions,
            "dead_letters": self.dead_letters,
            "messages_per_second": round(self.messages_per_second, 1),
            "label_schema_versions": {name: list(versions) for name, versions in self.versions.items()},
            "dead_letter_codes": dict(self.codes),
            "complete": self.is_complete,
            "broker": self.broker,
            "delivery": self.delivery,
            "engine": self.engine,
            "precision": self.precision,
            "seconds": round(self.seconds, 2),
            "start_seconds": {name: round(seconds, 2) for name, seconds in self.start_seconds.items()},
        }


@dataclass(slots=True)
class Tally:
    """What has come back so far; belongs to one thread."""

    predictions: int = 0
    dead_letters: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    versions: dict[str, list[int]] = field(default_factory=dict)
    sources: set[Place] = field(default_factory=set)
    recent: deque[Outcome] = field(default_factory=lambda: deque(maxlen=_RECENT))
    engine: str = "none"
    precision: str = "none"

    @property
    def results(self) -> int:
        """Predictions and dead letters."""
        return self.predictions + self.dead_letters

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.sources.add(outcome.source)
        self.recent.append(outcome)
        if outcome.code is not None:
            self.dead_letters += 1
            self.codes[outcome.code] += 1
            return
        self.predictions += 1
        self.engine, self.precision = outcome.engine, outcome.precision
        seen = self.versions.setdefault(outcome.schema, [])
        if outcome.version not in seen:
            seen.append(outcome.version)
