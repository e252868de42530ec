"""What a model thinks of a label schema: labels that it cannot keep apart, and templates that tell it nothing."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean
from typing import TypeVar

from worker.classifier import Answer
from worker.labels.schema import Label, LabelSchema, fill_template, parse_schema
from worker.trials import Decode, Try
from worker.types import JsonValue, Prediction, Record, Request

T = TypeVar("T")

ENTAILS = 0.9
"""From this probability on one hypothesis is taken to follow from another."""
NEAR = 0.6
"""From this probability on, both ways, two hypotheses are near each other: on the bundled model `a refund of money` and
`a return` have 0.66, labels of different things below 0.3 (2026-11-21)."""
ALIKE = 0.05
"""Where the best and the worst label differ by less on average, a template tells the model nothing."""
FEWEST_TEXTS = 20
"""With a smaller sample nothing is said of labels that no text gets."""
MOST_HYPOTHESES = 64
"""More are not compared pair by pair: that takes the square of their number."""
FLAT_TEXTS = 20
"""So many texts tell whether a template makes a difference."""
FLAT_LABELS = 100
"""With so many labels a template is tried: 2,000 pairs, where 1,000 labels on the words of each would be a million."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that a person may want to change."""

    code: str
    """`same`, `near`, `entails`, `unused`, `small`, `flat`, `partial` or `too_many`."""
    labels: tuple[str, ...]
    message: str
    suggestion: str
    score: float | None = None


def lint(attempt: Try, schema: LabelSchema, sample: Sequence[Record], decode: Decode) -> Iterator[Advice]:
    """Advice on `schema`, of which the texts of `sample` are typical; it may be empty. Blocks on the engine.

    Raises:
        SchemaError: the model cannot use the schema.
        EngineError: the engine cannot score.
    """

    def text_of(record: Record) -> Request:
        request = decode(record)
        return Request(request.id, request.text)  # not what a message sets for itself

    # The model judges the document itself before it is asked about hypotheses: those stand in probes of our own.
    attempt(schema, [], _plain)
    yield from _entailments(attempt, schema)
    if sample:
        yield from _unused(schema, attempt(schema, sample, text_of))
        yield from _flat_templates(attempt, schema, sample, text_of)
    else:
        words = _texts([_words(label) for label in _spread_over(_flat(schema.labels), FLAT_TEXTS)])
        yield from _flat_templates(attempt, schema, words, _plain)


def _entailments(attempt: Try, schema: LabelSchema) -> Iterator[Advice]:
    labels = _flat(schema.labels)
    if len(labels) > MOST_HYPOTHESES:
        message = f"{len(labels)} labels: hypotheses are compared pair by pair up to {MOST_HYPOTHESES} only"
        yield Advice("too_many", (), message, "lint groups of labels by themselves")
        return
    hypotheses = [_hypothesis(label, schema) for label in labels]
    probe = _schema([{"name": str(i), "hypothesis": text} for i, text in enumerate(hypotheses)], multi_label=True)
    follows = [_scores(answer) for answer in attempt(probe, _texts(hypotheses), _plain)]
    # Only siblings compete: that what is a phone is an electronic device, too, is as it should be.
    competing = [family for family in _families(schema.labels) if len(family) > 1]
    place = {label.name: number for number, label in enumerate(labels)}
    pairs = [(place[a.name], place[b.name]) for family in competing for a, b in combinations(family, 2)]
    for i, j in pairs:
        names = (labels[i].name, labels[j].name)
        there, back = follows[i].get(str(j), 0.0), follows[j].get(str(i), 0.0)
        if min(there, back) >= ENTAILS:
            message = f"{names[0]} and {names[1]} say the same to the model"
            yield Advice("same", names, message, "join them, or describe what sets them apart", min(there, back))
        elif min(there, back) >= NEAR:
            message = f"{names[0]} and {names[1]} are near each other"
            yield Advice("near", names, message, "describe what sets them apart", min(there, back))
        elif max(there, back) >= ENTAILS:
            first, second = names if there >= back else names[::-1]
            yield Advice(
                "entails",
                (first, second),
                f"whatever is {first} is {second} too, to the model: they compete for the same texts",
                f"make {second} narrower, or put {first} below it",
                max(there, back),
            )


def _unused(schema: LabelSchema, answers: Sequence[Answer]) -> Iterator[Advice]:
    predictions = [answer.outcome for answer in answers if isinstance(answer.outcome, Prediction)]
    if len(predictions) < FEWEST_TEXTS:
        message = f"{len(predictions)} scored texts: too few to tell which labels no text gets"
        yield Advice("small", (), message, f"give a sample of at least {FEWEST_TEXTS} texts")
        return
    scores = [score for prediction in predictions for score in prediction.scores if score.label in prediction.selected]
    selected = {label for score in scores for label in (score.label, *(score.path or ()))}
    for label in _flat(schema.labels):
        if label.name not in selected:
            message = f"none of {len(predictions)} texts gets {label.name}"
            yield Advice("unused", (label.name,), message, "describe it in the words of the texts, or leave it out")


def _flat_templates(attempt: Try, schema: LabelSchema, texts: Sequence[Record], decode: Decode) -> Iterator[Advice]:
    """Each template by itself: does it make a difference which label fills it?"""
    labels = _flat(schema.labels)
    if len(labels) == 1:
        return
    words = [{"name": label.name, "description": _words(label)} for label in _spread_over(labels, FLAT_LABELS)]
    tried = _spread_over(texts, FLAT_TEXTS)
    if len(words) < len(labels):
        message = f"{len(labels)} labels: templates are tried with {len(words)} of them, on {len(tried)} texts"
        yield Advice("partial", (), message, "lint groups of labels by themselves")
    for number, template in enumerate(schema.hypothesis_templates, start=1):
        probe = _schema(words, hypothesis_templates=[template])
        spreads = [_spread(scores) for answer in attempt(probe, tried, decode) if (scores := _scores(answer))]
        if spreads and mean(spreads) < ALIKE:
            message = f"under template {number} every label scores alike, on {len(spreads)} texts"
            suggestion = "say in it what the text is, as in `This customer message is about {}.`"
            yield Advice("flat", (), message, suggestion, mean(spreads))


def _schema(labels: Sequence[dict[str, str]], **more: JsonValue) -> LabelSchema:
    named: list[JsonValue] = [dict(label) for label in labels]
    return parse_schema({"name": "lint", "version": 0, "labels": named, **more}, "lint")


def _families(labels: Sequence[Label]) -> list[list[Label]]:
    """The labels of each level that stand beside one another."""
    return [list(labels), *(each for label in labels if label.children for each in _families(label.children))]


def _flat(labels: Sequence[Label]) -> list[Label]:
    """Every label of the tree."""
    flat: list[Label] = []
    for label in labels:
        flat += [label, *_flat(getattr(label, "children", None) or ())]
    return flat


def _spread_over(things: Sequence[T], most: int) -> list[T]:
    """All of `things`, or `most` of them from first to last at even distances."""
    if len(things) <= most:
        return list(things)
    return [things[number * len(things) // most] for number in range(most)]


def _words(label: Label) -> str:
    return label.description or label.name


def _hypothesis(label: Label, schema: LabelSchema) -> str:
    return label.hypothesis or fill_template(schema.hypothesis_templates[0], _words(label))


def _scores(answer: Answer) -> dict[str, float]:
    outcome = answer.outcome
    return {each.label: each.score for each in outcome.scores} if isinstance(outcome, Prediction) else {}


def _spread(scores: dict[str, float]) -> float:
    return max(scores.values()) - min(scores.values())


def _texts(texts: Sequence[str]) -> list[Record]:
    return [
        Record("lint", 0, number, 0, None, json.dumps({"text": text}).encode()) for number, text in enumerate(texts)
    ]


def _plain(record: Record) -> Request:
    return Request(str(record.offset), json.loads(record.value or b"{}")["text"])
