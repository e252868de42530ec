import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_openvino import TinyModel, write_tiny_model
from worker.bench.agreement import Case, Options, compare, draw_cases, macro_f1, score_cases
from worker.engines.artifact import open_folder
from worker.engines.fake import FakeEngine
from worker.engines.golden import encode_pairs


def _write_set(folder: Path, name: str, classes: int, rows: int = 60) -> None:
    with gzip.open(folder / f"{name}.test.jsonl.gz", "wt") as stream:
        for row in range(rows):
            stream.write(json.dumps({"text": f"text number {row}", "label": f"class_{row % classes:02}"}) + "\n")


def _case(name: str, classes: int, label: str) -> Case:
    return Case(name, classes, "a text", label, ("billing", "bug"))


def test_texts_are_drawn_evenly_over_the_sets_and_alike_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        _write_set(tmp_path, name, classes=3)
    cases = draw_cases(tmp_path, Options(texts=10))
    assert [sum(case.set_name == name for case in cases) for name in ("a", "b", "c")] == [4, 3, 3]
    assert draw_cases(tmp_path, Options(texts=10)) == cases
    assert draw_cases(tmp_path, Options(texts=10, seed=1)) != cases


def test_of_many_labels_so_many_are_drawn_and_the_true_one_is_among_them(tmp_path: Path) -> None:
    _write_set(tmp_path, "many", classes=30)
    for case in draw_cases(tmp_path, Options(texts=20, max_labels=5)):
        assert len(set(case.candidates)) == 5
        assert case.label in case.candidates


def test_a_folder_without_test_sets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file \*\.test\.jsonl\.gz"):
        draw_cases(tmp_path, Options())


def test_a_template_fits_its_set_and_labels_read_as_words() -> None:
    assert [pair.hypothesis for pair in Case("isear", 7, "a text", "joy", ("joy", "great_fear")).pairs()] == [
        "This text expresses joy.",
        "This text expresses great fear.",
    ]


def test_macro_f1_weighs_every_label_alike() -> None:
    # a: 2 of 3 found, none wrongly: 0.8; b: its one found, one wrongly: 2/3.
    assert macro_f1([("a", "a"), ("a", "a"), ("a", "b"), ("b", "b")]) == pytest.approx(100 * (0.8 + 2 / 3) / 2)


def test_a_changed_decision_counts_where_float32_is_sure_and_by_the_size_of_the_set() -> None:
    cases = [
        _case("small", 2, "billing"),
        _case("small", 2, "billing"),
        _case("large", 30, "bug"),
        _case("large", 30, "bug"),
    ]
    sure, unsure, other = [[2.0, 0.0], [0.0, 2.0]], [[0.01, 0.0], [0.0, 0.01]], [[0.0, 2.0], [2.0, 0.0]]
    reference = [np.array(rows, dtype=np.float32) for rows in (sure, unsure, sure, sure)]
    candidate = [np.array(rows, dtype=np.float32) for rows in (sure, other, sure, other)]

    found = compare(cases, reference, candidate, entailment=0)

    assert found["same_small_sets"] == 0.5
    assert found["same_sure"] == pytest.approx(2 / 3)
    assert found["same_all"] == 0.5
    assert found["max_logit_error"] == 2.0


def test_each_case_gets_the_logits_of_its_own_pairs_whatever_the_batches(tmp_path: Path) -> None:
    folder = open_folder(write_tiny_model(tmp_path, TinyModel(golden_offset=None)))
    cases = [Case("set", 2, "word " * length, "bug", ("billing", "bug")) for length in (30, 1, 12, 5)]
    engine = FakeEngine(token_budget=64)
    for case, logits in zip(cases, score_cases(engine, folder, cases, 128), strict=True):
        alone = [engine.score(single).logits[0].tolist() for single in encode_pairs(folder, case.pairs())]
        assert logits.tolist() == alone
