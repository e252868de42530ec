"""Every key of a label schema, in any mixture: the whole path decides as the document says it should."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.by_hand import ByHand, Expected
from tests.support.small_tokenizers import bert_style, save
from worker.classifier import Classifier, ClassifierParts
from worker.engines.fake import FakeEngine
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import Prediction, Record

LIMITS = Limits()
ENGINE = FakeEngine(max_pair_tokens=40)
NAMES = [f"n{number}" for number in range(12)]

words = st.lists(st.sampled_from(["a", "bill", "refund", "app", "is", "late", "good"]), min_size=1, max_size=5)
sentence = words.map(" ".join)
text_words = st.sampled_from(["the", "bill", "is", "late", "app", "good", "x"])
texts = st.integers(1, 90).flatmap(lambda count: st.lists(text_words, min_size=count, max_size=count)).map(" ".join)
share = st.floats(0.0, 1.0)
small_share = st.floats(0.0, 0.4)


@st.composite
def labels(draw: st.DrawFn, names: list[str], depth: int, *, is_multi: bool) -> list[dict[str, Any]]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        if not names:
            break
        label: dict[str, Any] = {"name": names.pop()}
        optional = {"description": sentence, "hypothesis": sentence, "threshold": share}
        if is_multi:
            optional["negative"] = sentence
        label |= {key: draw(values) for key, values in optional.items() if draw(st.integers(0, 3)) == 0}
        if depth and names and draw(st.booleans()):
            label["children"] = draw(labels(names, depth - 1, is_multi=is_multi))
        found.append(label)
    return found


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    is_multi = draw(st.booleans())
    tree = draw(labels(list(NAMES), draw(st.sampled_from([0, 0, 1, 2])), is_multi=is_multi))
    document: dict[str, Any] = {"name": "drawn", "version": 1, "multi_label": is_multi, "labels": tree}
    document["hypothesis_templates"] = [
        f"this {each} {{}}." for each in draw(st.lists(sentence, min_size=1, max_size=3))
    ]
    if any(label.get("children") for label in tree) and draw(st.booleans()):
        document["hierarchy"] = {"open_above": draw(small_share)}
    if not is_multi and draw(st.booleans()):
        bounds = {"below": share, "margin": small_share}
        document["abstain"] = {key: draw(values) for key, values in bounds.items() if draw(st.booleans())}
        document["abstain"]["label"] = "other"
    if draw(st.booleans()):
        model = draw(st.sampled_from([ENGINE.info.stamp.digest, "sha256:" + "0" * 64]))
        bias = draw(st.dictionaries(st.sampled_from(_names(tree)), st.floats(-3, 3)))
        document["calibration"] = {"model": model, "temperature": draw(st.floats(0.2, 5)), "bias": bias}
    if draw(st.booleans()):
        aggregate = draw(st.sampled_from(["max", "mean"]))
        overlap = draw(st.integers(0, 40))
        document["long_text"] = {"strategy": "windows", "overlap_tokens": overlap, "aggregate": aggregate}
    if draw(st.booleans()):
        document["top_k"] = draw(st.integers(1, 5))
    return document


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(bert_style(), tmp_path_factory.mktemp("tokenizer"))


@settings(max_examples=300)
@given(documents(), texts)
def test_a_message_is_decided_as_the_document_says(tokenizer_file: Path, document: dict[str, Any], text: str) -> None:
    expected = ByHand(document, Tokenizer.from_file(str(tokenizer_file)), ENGINE).decide(text)
    found = _predict(tokenizer_file, parse_schema(document, "test"), text)
    scores = {each.label: each.score for each in found.scores}
    assert scores.keys() <= expected.asked
    assert pytest.approx({name: expected.scores[name] for name in scores}, abs=1e-6) == scores
    assert (expected.spread is None) == (found.template_spread is None)
    assert pytest.approx(expected.spread or 0.0, abs=1e-6) == (found.template_spread or 0.0)
    is_close = _is_close_call(document, expected)
    event(f"windows: {found.text.windows > 1}, close call: {is_close}, top_k cuts: {expected.asked != scores.keys()}")
    event(f"path: {any(expected.paths.values())}, spread: {expected.spread is not None}")
    if not is_close:
        assert (expected.label, expected.selected) == (found.label, frozenset(found.selected))
        assert expected.listed == tuple(scores)
        assert expected.paths == {each.label: each.path for each in found.scores}


def _predict(tokenizer_file: Path, schema: LabelSchema, text: str) -> Prediction:
    parts = ClassifierParts(
        decode=lambda record: decode(record, InputFields(), LIMITS),
        resolve=lambda _: schema,
        tokenizer=PairTokenizer(tokenizer_file, ENGINE.info.max_pair_tokens),
        engine=ENGINE,
        max_pairs=LIMITS.pairs,
    )
    record = Record("t", 0, 0, 1, None, f'{{"text": "{text}"}}'.encode())
    [answer] = Classifier(parts).answers([record])
    assert isinstance(answer.outcome, Prediction)
    return answer.outcome


def _names(tree: list[dict[str, Any]]) -> list[str]:
    return [name for label in tree for name in (label["name"], *_names(label.get("children", [])))]


def _is_close_call(document: dict[str, Any], expected: Expected) -> bool:
    """Whether sums in another order could decide otherwise: a score at a bound, or two scores alike."""
    abstain, found = document.get("abstain") or {}, sorted(expected.scores.values())
    hierarchy = document.get("hierarchy") or {}
    bounds = [0.5, 0.2, abstain.get("below", 0.5), abstain.get("margin", 0.5), hierarchy.get("open_above", 0.2)]
    bounds += _thresholds(document["labels"])
    gaps = [abs(later - earlier) for earlier in [0.0, *found] for later in found if earlier is not later]
    ratios = [a / b for a in found for b in found if b]
    differences = [abs(a - b) / c for a in found for b in found for c in [1.0, *found] if c and a is not b]
    return any(gap < 1e-9 for gap in gaps) or any(
        abs(value - bound) < 1e-9 for bound in bounds for value in (*found, *ratios, *differences)
    )


def _thresholds(tree: list[dict[str, Any]]) -> list[float]:
    return [t for label in tree for t in (label.get("threshold", 0.5), *_thresholds(label.get("children", [])))]
