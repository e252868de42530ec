"""An instruction model reads the text, the question and every option; the text is what is cut."""

from pathlib import Path

import pytest

from tests.support.tiny_t5 import t5_tokenizer
from worker.errors import MessageError, SchemaError
from worker.label_sets import fitting
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue, Request, TokenizedPairs


@pytest.fixture
def file(tmp_path: Path) -> Path:
    t5_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def _schema(names: tuple[str, ...] = ("billing", "bug"), **more: JsonValue) -> LabelSchema:
    labels: list[JsonValue] = [{"name": name} for name in names]
    document: dict[str, JsonValue] = {"name": "x", "version": 1, "hypothesis_templates": ["{}"], "labels": labels}
    return parse_schema(document | more, "x")


def _apart(pairs: TokenizedPairs) -> list[tuple[list[int], list[int]]]:
    found, end = [], 0
    for length in pairs.lengths.tolist():
        ids, types = pairs.token_ids[end : end + length], pairs.type_ids[end : end + length]
        found.append((ids[types == 0].tolist(), ids[types == 1].tolist()))
        end += length
    return found


def _tokenized(file: Path, text: str, schema: LabelSchema, most: int = 96) -> TokenizedPairs:
    (pairs,) = PairTokenizer(file, most, reading="options").tokenize([plan_pairs(Request("", text), schema, 100)])
    if isinstance(pairs, MessageError):
        raise pairs
    return pairs


def test_the_prompt_is_what_the_tokenizer_makes_of_the_whole_of_it(file: Path) -> None:
    pairs = _apart(_tokenized(file, "the text", _schema(instruction="which is it?")))

    tokenizer = t5_tokenizer()
    prompt = tokenizer.encode("the text\n\nwhich is it?\nOPTIONS:\n- billing\n- bug").ids
    assert [(prompt, tokenizer.encode("billing").ids), (prompt, tokenizer.encode("bug").ids)] == pairs


def test_a_long_text_is_cut_and_the_options_are_whole(file: Path) -> None:
    pairs = _tokenized(file, "the " * 200, _schema(), most=60)

    whole = t5_tokenizer().encode("\n\nWhich sentence is true of this text?\nOPTIONS:\n- billing\n- bug").ids
    for prompt, option in _apart(pairs):
        assert whole == prompt[-len(whole) :]
        assert 60 >= len(prompt) + len(option)
    assert pairs.text.tokens_dropped > 0


def test_options_that_leave_no_room_for_a_text_are_refused(file: Path) -> None:
    names = tuple(f"label number {n}" for n in range(40))

    with pytest.raises(MessageError, match="40 options"):
        _tokenized(file, "the text", _schema(names), most=60)


@pytest.mark.parametrize("schema", [_schema(multi_label=True), _schema(("one",))])
def test_a_decision_that_is_not_between_options_is_refused_of_a_schema_and_of_a_message(
    file: Path, schema: LabelSchema
) -> None:
    with pytest.raises(SchemaError, match="one of several options"):
        fitting(PairTokenizer(file, 96, reading="options"), 100)(schema)
    with pytest.raises(MessageError, match="one of several options"):
        _tokenized(file, "the text", schema)


def test_an_only_child_is_refused(file: Path) -> None:
    labels: JsonValue = [{"name": "a", "children": [{"name": "b"}]}, {"name": "c"}]

    with pytest.raises(SchemaError, match="two beside each other"):
        fitting(PairTokenizer(file, 96, reading="options"), 100)(_schema(labels=labels))
