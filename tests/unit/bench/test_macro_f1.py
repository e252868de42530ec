import gzip
import json
from pathlib import Path

import pytest

from worker.bench.macro_f1 import draw, macro_f1


def test_macro_f1_is_the_mean_over_classes_whatever_their_size() -> None:
    # a: 3 right of 4, one taken for b: F1 = 6/7. b: right, plus one false: F1 = 2/3. c: refused: F1 = 0.
    truth = ["a", "a", "a", "a", "b", "c"]
    predicted = ["a", "a", "a", "b", "b", None]
    assert pytest.approx((6 / 7 + 2 / 3 + 0) / 3) == macro_f1(truth, predicted)


def test_the_same_seed_draws_the_same_texts(tmp_path: Path) -> None:
    path = tmp_path / "set.test.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps({"text": f"text {i}", "label": "a"}) + "\n" for i in range(50))
    assert draw(path, 10, 0) == draw(path, 10, 0)
    assert draw(path, 10, 0) != draw(path, 10, 1)
    assert 50 == len(draw(path, 1000, 0))
