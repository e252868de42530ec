"""What a label schema can ask for, on the model that ships: put together by hand from plain label sets."""

import json
import math
from collections.abc import Iterator, Mapping

import pytest
from tokenizers import Tokenizer

from worker.classifier import Classifier, ClassifierParts
from worker.engines.load import EngineChoice, load_engine
from worker.label_sets import pair_tokenizer
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import window_starts
from worker.settings import Limits
from worker.types import JsonValue, Prediction, Record

LIMITS = Limits()
SCORES_AGREE = 2e-2
"""The model computes in bfloat16 where the CPU has it, and other batches are other sums: see promise on precision."""


class Model:
    """The bundled model under one schema at a time."""

    def __init__(self) -> None:
        self.loaded = load_engine(EngineChoice("bundled", "auto", "auto"))
        self.schema: LabelSchema | None = None
        self.classifier = Classifier(
            ClassifierParts(
                decode=lambda record: decode(record, InputFields(), LIMITS),
                resolve=lambda _: self.of_now(),
                tokenizer=pair_tokenizer(self.loaded),
                engine=self.loaded.engine,
                max_pairs=LIMITS.pairs,
            )
        )

    def of_now(self) -> LabelSchema:
        assert self.schema is not None
        return self.schema

    def predict(self, text: str, labels: JsonValue, **document: JsonValue) -> Prediction:
        self.schema = parse_schema({"name": "a", "version": 1, "labels": labels, **document}, "test")
        record = Record("t", 0, 0, 1, None, json.dumps({"text": text}).encode())
        [answer] = self.classifier.answers([record])
        assert isinstance(answer.outcome, Prediction)
        return answer.outcome


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.loaded.engine.close()


def scores(prediction: Prediction) -> dict[str, float]:
    return {each.label: each.score for each in prediction.scores}


def near(expected: Mapping[str, float]) -> object:
    return pytest.approx(dict(expected), abs=SCORES_AGREE)


def named(*names: str) -> list[JsonValue]:
    return [{"name": name} for name in names]


TEXT = "I was charged twice on my credit card and nobody answers the phone."
TOPICS = ("a payment", "customer service", "a football match")


def evidence(prediction: Prediction) -> dict[str, float]:
    """The entailment logits behind scores that share 1, up to a number that all have in common."""
    return {label: math.log(score) for label, score in scores(prediction).items()}


def softmax(z: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(math.exp(each) for each in z.values())
    return {label: math.exp(each) / total for label, each in z.items()}


def test_templates_are_averaged_by_their_logits_and_the_widest_difference_is_told(model: Model) -> None:
    templates = ("This text is about {}.", "The customer complains about {}.")
    alone = [model.predict(TEXT, named(*TOPICS), hypothesis_templates=[template]) for template in templates]
    mean = {label: math.fsum(evidence(each)[label] for each in alone) / 2 for label in TOPICS}
    both = model.predict(TEXT, named(*TOPICS), hypothesis_templates=[*templates])
    assert near(softmax(mean)) == scores(both)
    first, second = (scores(each) for each in alone)
    widest = max(abs(first[label] - second[label]) for label in TOPICS)
    assert pytest.approx(widest, abs=2 * SCORES_AGREE) == both.template_spread


def test_calibration_divides_the_evidence_and_adds_to_it(model: Model) -> None:
    plain = model.predict(TEXT, named(*TOPICS))
    digest = model.loaded.engine.info.stamp.digest
    calibration: JsonValue = {"model": digest, "temperature": 2.0, "bias": {"a football match": 1.5}}
    calibrated = model.predict(TEXT, named(*TOPICS), calibration=calibration)
    z = {label: each / 2.0 + (1.5 if label == "a football match" else 0.0) for label, each in evidence(plain).items()}
    assert near(softmax(z)) == scores(calibrated)
    assert (False, True) == (plain.calibrated, calibrated.calibrated)


def test_a_winner_is_told_unless_a_bound_is_above_its_score(model: Model) -> None:
    ranked = model.predict(TEXT, named(*TOPICS)).scores
    best, lead = ranked[0], ranked[0].score - ranked[1].score
    assert lead > 2 * SCORES_AGREE
    for bound, wins in [(best.score - SCORES_AGREE, True), (best.score + SCORES_AGREE, False)]:
        labels: list[JsonValue] = [{"name": name, "threshold": bound} for name in TOPICS]
        for answer in (
            model.predict(TEXT, labels),
            model.predict(TEXT, named(*TOPICS), abstain={"below": bound}),
            model.predict(TEXT, named(*TOPICS), abstain={"margin": bound - best.score + lead}),
        ):
            assert ((best.label,) if wins else ()) == answer.selected
    assert "other" == model.predict(TEXT, named(*TOPICS), abstain={"below": 1.0, "label": "other"}).label


def test_each_of_several_labels_is_selected_by_its_own_threshold(model: Model) -> None:
    alone = {name: scores(model.predict(TEXT, named(name)))[name] for name in TOPICS}
    together = model.predict(TEXT, named(*TOPICS), multi_label=True)
    assert near(alone) == scores(together)
    over, under = ({name: score + step for name, score in alone.items()} for step in (-SCORES_AGREE, SCORES_AGREE))
    for thresholds, expected in ((over, set(TOPICS)), (under, set())):
        labels: list[JsonValue] = [{"name": name, "threshold": min(1.0, max(0.0, t))} for name, t in thresholds.items()]
        assert expected == set(model.predict(TEXT, labels, multi_label=True).selected)


def test_a_negative_hypothesis_takes_the_place_of_the_contradiction(model: Model) -> None:
    claim, opposite = "The customer is angry.", "The customer is happy."
    pair = model.predict(TEXT, [{"name": "a", "hypothesis": claim}, {"name": "b", "hypothesis": opposite}])
    contrasted = model.predict(TEXT, [{"name": "a", "hypothesis": claim, "negative": opposite}], multi_label=True)
    # A softmax of two entailments is the sigmoid of their difference.
    assert near({"a": scores(pair)["a"]}) == scores(contrasted)


def test_a_hierarchy_is_its_levels_scored_one_after_the_other(model: Model) -> None:
    text = "The parcel with my new shoes should have been here on Monday and still has not arrived."
    roots, shelves = ("delivery", "payment", "technology"), ("a late parcel", "a broken parcel")
    tree: list[JsonValue] = [{"name": name} for name in roots]
    tree[0] = {"name": "delivery", "children": named(*shelves)}
    prediction = model.predict(text, tree, hierarchy={"open_above": 0.0})
    level_one, level_two = (scores(model.predict(text, named(*level))) for level in (roots, shelves))
    assert "delivery" == max(level_one, key=level_one.__getitem__)
    below = {name: level_one["delivery"] * share for name, share in level_two.items()}
    assert near(level_one | below) == scores(prediction)
    assert max(level_two, key=level_two.__getitem__) == prediction.label


def test_windows_are_scored_as_texts_of_their_own_and_put_together_label_by_label(model: Model) -> None:
    words = ("the weather was fine and we walked along the river " * 60 + "i want my money back for this bill").split()
    text, labels = " ".join(words), named("money", "weather")
    own = Tokenizer.from_file(str(model.loaded.tokenizer_file))
    own.no_truncation()
    assert len(words) == len(own.encode(text, add_special_tokens=False).ids)  # every word is one token
    longest = max(
        len(own.encode(f"This example is {name}.", add_special_tokens=False).ids) for name in ("money", "weather")
    )
    size = model.loaded.engine.info.max_pair_tokens - 3 - longest
    starts = window_starts(len(words), size, 32)
    assert 2 == len(starts)
    alone = [scores(model.predict(" ".join(words[s : s + size]), labels, multi_label=True)) for s in starts]
    best = model.predict(text, labels, multi_label=True, long_text={"strategy": "windows"})
    assert (2, 0, 4) == (best.text.windows, best.text.tokens_dropped, best.pairs.scored)
    assert near({name: max(each[name] for each in alone) for name in ("money", "weather")}) == scores(best)
    mean = model.predict(text, labels, multi_label=True, long_text={"strategy": "windows", "aggregate": "mean"})
    for name, score in scores(mean).items():
        z = sum(math.log(each[name] / (1 - each[name])) for each in alone) / 2
        assert pytest.approx(1 / (1 + math.exp(-z)), abs=SCORES_AGREE) == score


def test_a_short_text_is_one_window_and_scored_alike(model: Model) -> None:
    text = "I was charged twice on my credit card."
    labels = named("a payment", "a football match", "a holiday")
    plain = model.predict(text, labels)
    windows = model.predict(text, labels, long_text={"strategy": "windows"})
    assert near(scores(plain)) == scores(windows)
    assert plain.text == windows.text


def test_a_thousand_labels_are_scored_with_every_label_in_the_prediction(model: Model) -> None:
    names = [f"thing {number}" for number in range(999)]
    prediction = model.predict("I was charged twice on my credit card.", named("a payment", *names))
    assert {"a payment", *names} == set(scores(prediction))
    assert pytest.approx(1.0, abs=1e-6) == sum(scores(prediction).values())


WANTS = [
    *("book a flight", "reset a password", "track a parcel", "report a broken screen", "order a pizza"),
    *("change an address", "cancel a subscription", "ask for a refund", "find a restaurant", "play some music"),
    *("translate a word", "report the weather", "make a payment", "set an alarm", "learn to cook"),
]


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("Where is my package? The tracking page has not moved since Monday.", "track a parcel"),
        ("I forgot my login and need a new password.", "reset a password"),
        ("Wake me up at seven tomorrow morning.", "set an alarm"),
        ("Will it rain this weekend?", "report the weather"),
        ("Please give me my money back, the shoes do not fit.", "ask for a refund"),
    ],
)
def test_a_shortlist_is_the_labels_in_question_scored_among_themselves(model: Model, text: str, best: str) -> None:
    short = model.predict(text, named(*WANTS), shortlist={"top_k": 5})
    assert (5, len(WANTS) - 5) == (short.pairs.scored, short.pairs.skipped)
    listed = [name for name in WANTS if name in scores(short)]
    assert best in listed
    alone = model.predict(text, named(*listed))
    assert near(scores(alone)) == scores(short)
    assert short.label == max(listed, key=scores(alone).__getitem__)
