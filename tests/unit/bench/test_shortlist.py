"""The comparison of shortlists with the full pass."""

import gzip
import json
from pathlib import Path

import pytest

from worker.bench.shortlist import Options, draw, main, measure, schema_of
from worker.errors import ConfigError

CLASSES = ["an_invoice", "a_parcel", "a_password", "a_refund", "an_app"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "wants.test.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number in range(60):
            label = CLASSES[number % len(CLASSES)]
            row = {"text": f"Hello, this is about {label.replace('_', ' ')} of mine, number {number}.", "label": label}
            stream.write(json.dumps(row) + "\n")
    return tmp_path


def options(data: Path, labels: int = 5) -> Options:
    return Options(data, "wants", labels, (2, 5), texts=30)


def test_the_same_seed_draws_the_same_labels_and_texts(data: Path) -> None:
    labels, rows = draw(options(data, labels=3))
    assert (labels, rows) == draw(options(data, labels=3))
    assert 3 == len(set(labels))
    assert {row.label for row in rows} <= set(labels)


@pytest.mark.parametrize(
    "content",
    [b"no archive", gzip.compress(b"no JSON"), gzip.compress(b'{"text": "a"}\n')],
    ids=["no archive", "no JSON", "no label"],
)
def test_a_set_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wants.test.jsonl.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--set: .*wants\.test\.jsonl\.gz"):
        draw(options(tmp_path))


def test_labels_are_put_in_plain_words() -> None:
    schema = schema_of("wants", CLASSES, 2)
    assert "This example is an invoice." == schema.tree.nodes[0].hypotheses[0]
    assert CLASSES == [label.name for label in schema.labels]


def test_a_shortlist_that_holds_all_labels_decides_alike_and_a_shorter_one_runs_fewer_pairs(data: Path) -> None:
    report = measure(options(data))
    few, all_labels = report.shortlists
    assert (30, 5) == (report.texts, report.labels)
    assert (2.0, 5.0) == (few.pairs_per_text, all_labels.pairs_per_text)
    assert (1.0, 0.0) == (all_labels.same_top_label, all_labels.macro_f1_difference)
    assert 0 < few.speed_ratio


def test_it_prints_one_json_object_or_a_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--data", str(data), "--set", "wants", "--labels", "5", "--top-k", "2", "--texts", "10"]
    assert 0 == main([*asked, "--json"])
    assert [2] == [each["top_k"] for each in json.loads(capsys.readouterr().out)["shortlists"]]
    assert 0 == main(asked)
    assert "top_k" in capsys.readouterr().out
