"""Label schemas tried on a sample, without publishing anything: what a change would flip, and what a schema gets wrong.

`compare` scores the same texts under two versions; `worker.lint` asks the model about the labels themselves.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from worker.classifier import Answer, Classifier, ClassifierParts
from worker.clock import SystemClock
from worker.config import Config
from worker.engines.load import EngineChoice, load_engine
from worker.errors import ConfigError, SchemaError
from worker.kafka.clients import reader_settings
from worker.kafka.present import present_bindings
from worker.kafka.registry_parts import registry_parts
from worker.kafka.sample import MissingTopicError, latest_records
from worker.label_sets import fitting, pair_tokenizer
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema
from worker.messages.codec import ReadValue, decode
from worker.messages.reference import SchemaReference, parse_reference
from worker.observability.health import Readiness
from worker.settings import Limits
from worker.types import Prediction, Record, Refusal, Request

Decode = Callable[[Record], Request]
Try = Callable[[LabelSchema, Sequence[Record], Decode], list[Answer]]
"""What each record gets under a schema, in order."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One message that would be decided otherwise."""

    id: str
    before: str
    after: str
    text: str


@dataclass(frozen=True, slots=True)
class Side:
    """What one version does with the sample."""

    reference: str
    predicted: int
    refused: Mapping[str, int]
    """By error code."""
    abstained: int
    pairs_per_message: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What would change."""

    messages: int
    before: Side | None
    """None where no version holds yet."""
    after: Side
    flips: tuple[Flip, ...]

    @property
    def moves(self) -> tuple[tuple[str, str, int], ...]:
        """From what to what how often, the most frequent first."""
        counted = Counter((flip.before, flip.after) for flip in self.flips)
        return tuple((before, after, times) for (before, after), times in counted.most_common())


@dataclass(frozen=True, slots=True)
class Trials:
    """A model under which label schemas can be tried; trying one that it cannot use raises SchemaError."""

    attempt: Try
    known: LabelRegistry
    """What holds already, as a worker with this model judges it: for records that name a label schema themselves."""


@contextmanager
def open_trials(
    choice: EngineChoice, limits: Limits, fill: Callable[[LabelRegistry], object] | None = None
) -> Iterator[Trials]:
    """A model loaded and warm; `fill` puts the label schemas that there are into a registry.

    Raises:
        WorkerError: the model cannot be used, or `fill` fails; the message says why.
    """
    model = load_engine(choice)
    try:
        model.engine.warm_up()
        tokenizer = pair_tokenizer(model)
        digest = model.engine.info.stamp.digest
        known = LabelRegistry(limits, digest, fitting(tokenizer, limits.pairs))
        if fill is not None:
            fill(known)

        def attempt(schema: LabelSchema, records: Sequence[Record], decode: Decode) -> list[Answer]:
            labels = LabelRegistry(limits, digest, fitting(tokenizer, limits.pairs))
            for refusal in labels.offer(schema, schema.reference).refused:
                raise SchemaError(str(refusal))
            parts = ClassifierParts(
                decode=decode,
                resolve=partial(_resolve, (labels, known), schema, limits),
                tokenizer=tokenizer,
                engine=model.engine,
                max_pairs=limits.pairs,
            )
            return list(Classifier(parts).answers(records))

        yield Trials(attempt, known)
    finally:
        model.engine.close()


def _resolve(
    registries: tuple[LabelRegistry, LabelRegistry], schema: LabelSchema, limits: Limits, request: Request
) -> LabelSchema:
    """The labels of `request` if `schema` held: what it names itself is its own, or one that is known."""
    tried, known = registries
    if request.label_schema is None:
        return tried.resolve(request, schema.reference, limits)
    if parse_reference(request.label_schema) in {SchemaReference(schema.name, v) for v in (None, schema.version)}:
        return tried.resolve(replace(request, label_schema=None), schema.reference, limits)
    return known.resolve(request, schema.reference, limits)


def compare(
    attempt: Try, schemas: tuple[LabelSchema | None, LabelSchema], records: Sequence[Record], decode: Decode
) -> Comparison:
    """`records` under the present version, where there is one, and under the proposed one. Blocks on the engine.

    Raises:
        SchemaError: the model cannot use one of them.
        EngineError: the engine cannot score.
    """
    present, proposed = schemas
    after = attempt(proposed, records, decode)
    if present is None:
        return Comparison(len(records), None, _side(proposed, after), ())
    before = attempt(present, records, decode)
    flips = (_flip(old, new) for old, new in zip(before, after, strict=True))
    found = tuple(flip for flip in flips if flip is not None)
    return Comparison(len(records), _side(present, before), _side(proposed, after), found)


def decision_of(outcome: Prediction | Refusal) -> str:
    """What was decided, in words: labels, the abstention, or the code of the refusal."""
    if isinstance(outcome, Refusal):
        return f"refused ({outcome.code.value})"
    if outcome.selected:
        return ", ".join(sorted(outcome.selected))
    return "abstains" if outcome.label is None else f"abstains ({outcome.label})"


def _flip(old: Answer, new: Answer) -> Flip | None:
    before, after = decision_of(old.outcome), decision_of(new.outcome)
    if before == after:
        return None
    request = new.request or old.request
    record = new.record
    identity = f"{record.topic}/{record.partition}/{record.offset}" if request is None else request.id
    return Flip(identity, before, after, "" if request is None else request.text)


def _side(schema: LabelSchema, answers: Sequence[Answer]) -> Side:
    predictions = [answer.outcome for answer in answers if isinstance(answer.outcome, Prediction)]
    refused = Counter(answer.outcome.code.value for answer in answers if isinstance(answer.outcome, Refusal))
    pairs = sum(prediction.pairs.scored for prediction in predictions)
    return Side(
        schema.reference,
        len(predictions),
        dict(refused),
        sum(not prediction.selected for prediction in predictions),
        pairs / len(predictions) if predictions else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """Records to try a label schema on."""

    records: list[Record]
    decode: Decode
    missing: tuple[str, ...] = ()
    """Topics that would have been read, and are not there."""


def sample_of(config: Config, name: str, last: int) -> Sample:
    """About the last `last` records of the topics whose bindings use the label schema `name`. Blocks.

    Topics that are not there are left out.

    Raises:
        ConfigError: no binding uses it, or none of their topics is there.
        RetryableError: a topic cannot be read.
    """
    bindings = {
        binding.input: binding
        for binding in present_bindings(config.kafka, config.bindings(), "schemas")
        if (parsed := parse_reference(binding.label_schema or "")) is not None and parsed.name == name
    }
    if not bindings:
        raise ConfigError(f"{name}: no binding uses it; give a sample with --file")
    share = -(-last // len(bindings))
    settings = reader_settings(config.kafka, "schemas")
    records, missing = list[Record](), list[str]()
    for topic in bindings:
        try:
            records += latest_records(settings, topic, share, SystemClock())
        except MissingTopicError:
            missing.append(topic)
    if len(missing) == len(bindings):
        told = f"none of its topics is there yet ({', '.join(missing)})"
        raise ConfigError(f"{name}: {told}: create them, or give a sample with --file")
    read = _registry_read(config, records[:last])
    return Sample(
        records[:last],
        lambda record: decode(record, bindings[record.topic].input_fields, config.limits, None, read),
        tuple(missing),
    )


def _registry_read(config: Config, records: Sequence[Record]) -> ReadValue | None:
    """How records under schemas of the registry are read, those of `records` looked up; None without a registry."""
    registry = registry_parts(config.registry, config.bindings(), Readiness(), SystemClock())
    if registry is None:
        return None
    for record in records:
        registry.shelf.prepare(record)
    registry.close()
    return registry.read
