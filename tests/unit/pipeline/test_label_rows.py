"""A one-pass model reads all labels of a decision beside the text in one row; the text is what is cut."""

from pathlib import Path

import pytest

from tests.support import small_tokenizers
from tests.support.tiny_gliclass import TOKENIZERS, marked
from worker.errors import EngineError, ErrorCode, MessageError, SchemaError
from worker.label_sets import fitting
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue, LabelRow, Request, TokenizedPairs

LABELS = ("refund", "late delivery", "crash")


def _row(tokenizer_of: str, **more: bool | int) -> LabelRow:
    tokenizer = marked(TOKENIZERS[tokenizer_of]())
    label, text = (tokenizer.token_to_id(token) for token in ("<<LABEL>>", "<<SEP>>"))
    assert label is not None
    assert text is not None
    return LabelRow(label, text, bool(more.get("is_text_last", True)), more.get("most_labels"))


def _file(folder: Path, tokenizer_of: str) -> Path:
    return small_tokenizers.save(marked(TOKENIZERS[tokenizer_of]()), folder)


def _schema(names: tuple[str, ...] = LABELS, **more: JsonValue) -> LabelSchema:
    labels: list[JsonValue] = [{"name": name} for name in names]
    document: dict[str, JsonValue] = {"name": "x", "version": 1, "hypothesis_templates": ["{}"], "labels": labels}
    return parse_schema(document | more, "x")


def _tokenized(tokenizer: PairTokenizer, text: str, schema: LabelSchema) -> TokenizedPairs:
    (pairs,) = tokenizer.tokenize([plan_pairs(Request("", text), schema, 1000)])
    if isinstance(pairs, MessageError):
        raise pairs
    return pairs


@pytest.mark.parametrize("tokenizer_of", TOKENIZERS)
@pytest.mark.parametrize("is_text_last", [True, False])
def test_a_row_is_what_the_tokenizer_makes_of_the_whole_of_it(
    tmp_path: Path, tokenizer_of: str, is_text_last: bool
) -> None:
    row = _row(tokenizer_of, is_text_last=is_text_last)
    tokenizer = PairTokenizer(_file(tmp_path, tokenizer_of), 100, reading=row)

    pairs = _tokenized(tokenizer, "The app is late", _schema())

    labels = "".join(f"<<LABEL>>{label}" for label in LABELS) + "<<SEP>>"
    whole = labels + "The app is late" if is_text_last else "The app is late" + labels
    assert marked(TOKENIZERS[tokenizer_of]()).encode(whole).ids == pairs.token_ids.tolist()
    assert ([len(pairs.token_ids)], 3) == (pairs.lengths.tolist(), pairs.hypotheses)
    assert [row.label_token] * 3 == pairs.token_ids[pairs.type_ids == 1].tolist()
    assert [row.text_token] == pairs.token_ids[pairs.type_ids == 2].tolist()


@pytest.mark.parametrize("is_text_last", [True, False])
def test_a_long_text_is_cut_and_the_labels_are_whole(tmp_path: Path, is_text_last: bool) -> None:
    row = _row("bert", is_text_last=is_text_last)
    pairs = _tokenized(PairTokenizer(_file(tmp_path, "bert"), 40, reading=row), "late " * 100, _schema())

    assert [40] == pairs.lengths.tolist()
    assert 3 == (pairs.type_ids == 1).sum()
    assert pairs.text.tokens + pairs.text.tokens_dropped == 100
    assert pairs.text.tokens_dropped > 0


def test_a_text_in_windows_is_a_row_for_each(tmp_path: Path) -> None:
    schema = _schema(long_text={"strategy": "windows", "overlap_tokens": 2})
    pairs = _tokenized(PairTokenizer(_file(tmp_path, "bert"), 40, reading=_row("bert")), "late " * 60, schema)

    assert 1 < pairs.text.windows == len(pairs.lengths)
    assert 0 == pairs.text.tokens_dropped
    assert 3 * pairs.text.windows == (pairs.type_ids == 1).sum()


def test_labels_that_leave_no_room_for_text_are_refused_with_their_code(tmp_path: Path) -> None:
    tokenizer = PairTokenizer(_file(tmp_path, "bert"), 24, reading=_row("bert"))
    schema = _schema(tuple(f"{name} {number}" for name in LABELS for number in range(5)))

    with pytest.raises(MessageError, match="15 options leaves no room") as refused:
        _tokenized(tokenizer, "late", schema)
    assert ErrorCode.HYPOTHESIS_TOO_LONG is refused.value.code
    with pytest.raises(SchemaError, match="leaves no room"):
        fitting(tokenizer, 100)(schema)


def test_more_labels_than_the_model_has_places_for_are_refused_with_their_code(tmp_path: Path) -> None:
    tokenizer = PairTokenizer(_file(tmp_path, "bert"), 100, reading=_row("bert", most_labels=2))

    with pytest.raises(MessageError, match="3 hypotheses in one decision; this model has places for 2") as refused:
        _tokenized(tokenizer, "late", _schema())
    assert ErrorCode.LABELS_INVALID is refused.value.code


def test_only_the_labels_of_a_stage_have_to_fit_together(tmp_path: Path) -> None:
    names = tuple(f"{name} {number}" for name in LABELS for number in range(4))
    labels: list[JsonValue] = [
        {"name": name, "children": [{"name": each} for each in names if each.startswith(name)]}
        for name in ("refund", "late delivery", "crash")
    ]
    tokenizer = PairTokenizer(_file(tmp_path, "bert"), 48, reading=_row("bert"))

    fitting(tokenizer, 100)(_schema(labels=labels))

    with pytest.raises(SchemaError, match="leaves no room"):
        fitting(tokenizer, 100)(_schema((*names, *LABELS)))


def test_a_tokenizer_that_knows_no_labels_is_refused(tmp_path: Path) -> None:
    file = small_tokenizers.save(small_tokenizers.bert_style(), tmp_path)
    with pytest.raises(EngineError, match="lacks the tokens that mark labels"):
        PairTokenizer(file, 100, reading=LabelRow(100_000, 100_001))


def test_a_tokenizer_that_reads_a_label_differently_after_its_token_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers  # noqa: PLC0415  # only here

    own = small_tokenizers.deberta_style()
    own.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    with pytest.raises(EngineError, match="reads a label differently"):
        PairTokenizer(small_tokenizers.save(marked(own), tmp_path), 100, reading=_row("deberta-v2"))
