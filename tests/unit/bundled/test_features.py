"""What a label schema can ask for, on the model that ships: put together by hand from plain label sets."""

import json
import math
from collections.abc import Iterator, Mapping

import pytest
from tokenizers import Tokenizer

from worker.classifier import Classifier, ClassifierParts
from worker.engines.load import EngineChoice, load_engine
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer, window_starts
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
        info = self.loaded.engine.info
        self.classifier = Classifier(
            ClassifierParts(
                decode=lambda record: decode(record, InputFields(), LIMITS),
                resolve=lambda _: self.of_now(),
                tokenizer=PairTokenizer(self.loaded.tokenizer_file, info.max_pair_tokens),
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
