"""Figures are those of the model, in the column that its training earns them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_data import write_rows, write_world
from worker.clock import ManualClock
from worker.engines.load import EngineChoice, load_engine
from worker.errors import ConfigError
from worker.labels.schema import parse_schema
from worker.training.card import Provenance, StageFacts
from worker.training.data import NliRow
from worker.training.evaluate import Column, TaskFigures, column_of, evaluate_nli, evaluate_task
from worker.training.finetune import Learnt
from worker.training.prepare import HeldOut, SetUse
from worker.training.report import Report, as_object, markdown, write_report
from worker.training.scoring import Meter, Scorer, evidence_by_template
from worker.training.sets import read_table
from worker.training.tasks import Sampling, btzsc_tasks, table_task


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    loaded = load_engine(EngineChoice(engine="fake"))
    yield Scorer(loaded, Meter(ManualClock()))
    loaded.engine.close()


def _provenance(*uses: tuple[str, str, str]) -> Provenance:
    learnt = Learnt(1, 1, 1.0, 1.0, 0, None, None, 1.0)
    found = tuple(SetUse(name, kind, cluster, "x", "yes", 1, 2, 2) for name, kind, cluster in uses)
    return Provenance("m", "v", HeldOut(), (StageFacts("s", found, learnt, 0),), "{}", "worker train")


@pytest.mark.parametrize(
    ("provenance", "column"),
    [
        (None, Column.UNKNOWN),
        (_provenance(("mnli", "nli", "nli")), Column.NLI_ONLY),
        (_provenance(("mnli", "nli", "nli"), ("trec", "classification", "topic")), Column.CLUSTER_HELD_OUT),
        (_provenance(("imdb", "classification", "sentiment")), Column.SET_HELD_OUT),
        (_provenance(("rotten_tomatoes", "classification", "sentiment")), Column.ALL),
        (_provenance(("opinions", "nli", "sentiment"), ("trec", "classification", "topic")), Column.SET_HELD_OUT),
        (_provenance(("opinions", "nli", "sentiment")), Column.NLI_ONLY),
    ],
)
def test_a_figure_is_zero_shot_only_where_no_set_of_the_cluster_was_seen(
    provenance: Provenance | None, column: Column
) -> None:
    assert column == column_of(provenance, "rottentomatoes", "sentiment")


def test_evidence_is_the_same_however_texts_are_put_into_batches(scorer: Scorer) -> None:
    schema = parse_schema(
        {
            "name": "x",
            "version": 1,
            "hypothesis_templates": ["It is {}.", "About {}."],
            "labels": [{"name": "a"}, {"name": "b", "hypothesis": "Whole."}],
        },
        "x",
    )
    texts = [f"text {'word ' * (n % 7)} {n}" for n in range(40)]

    together = [evidence_by_template(stage, 0) for stage in scorer.stages(schema, texts)]
    alone = [evidence_by_template(stage, 0) for text in texts for stage in scorer.stages(schema, [text])]

    assert np.array_equal(together, alone)
    assert (40, 2, 2) == np.stack(together).shape
    # A whole hypothesis is the same under both templates, and the fake engine gives other pairs other logits.
    assert np.array_equal(np.stack(together)[:, 1, 0], np.stack(together)[:, 1, 1])
    assert 40 * 3 * 2 == scorer.meter.pairs


def test_the_mean_over_templates_its_spread_and_the_best_are_told_apart(scorer: Scorer, tmp_path: Path) -> None:
    figures = _evaluated(scorer, tmp_path)[0]

    f1 = [each.macro_f1 for each in figures.templates]
    assert 2 == len(f1)
    assert sum(f1) / 2 == pytest.approx(figures.macro_f1)
    assert max(f1) - min(f1) == pytest.approx(figures.spread)
    assert max(f1) == figures.best
    assert figures.interval.low <= figures.macro_f1 <= figures.interval.high
    assert 20 == figures.texts == figures.confusion.sum()
    assert 20 == sum(each.texts for each in figures.bins)


def test_the_same_sample_is_drawn_each_time(tmp_path: Path) -> None:
    table = read_table(write_world(tmp_path)).classification[0]

    first, again = (table_task(table, tmp_path, Sampling(texts=11, seed=3)) for _ in range(2))

    assert first == again
    assert first is not None
    assert 11 == len(first.rows)


def test_nli_accuracy_is_of_two_classes_and_stands_beside_the_majority(scorer: Scorer) -> None:
    rows = [NliRow(f"premise {n}", f"hypothesis {n}", n % 4 == 0) for n in range(200)]

    figures = evaluate_nli(scorer, "x", rows, "fake")

    assert 200 == figures.pairs
    assert 0.75 == figures.majority
    assert 0.3 < figures.accuracy < 0.7  # nonsense is right half the time


def test_sets_in_the_format_of_btzsc_are_grouped_by_text(tmp_path: Path) -> None:
    hypotheses = ["It is a.", "It is b.", "It is c."]
    rows = [
        {"text": f"text {n}", "hypothesis": said, "labels": int(place == n % 3)}
        for n in range(9)
        for place, said in enumerate(hypotheses)
    ]
    (tmp_path / "agnews").mkdir()
    write_rows(tmp_path / "agnews" / "test-0.jsonl.gz", rows)

    (task,) = btzsc_tasks(tmp_path, Sampling())

    assert ("agnews", "topic", 9) == (task.name, task.cluster, len(task.rows))
    assert hypotheses == [node.hypotheses[0] for node in task.schema.tree.nodes]
    assert ["It is a.", "It is b.", "It is c."] * 3 == [row.label for row in task.rows]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("ag_news", Column.CLUSTER_HELD_OUT),  # a spelling of `agnews`, of which nothing was seen
        ("Rotten_Tomatoes", Column.SET_HELD_OUT),
        ("nobody_knows", Column.SET_HELD_OUT),
    ],
)
def test_a_btzsc_set_is_known_however_it_is_spelt_and_an_unknown_one_is_never_zero_shot(
    tmp_path: Path, name: str, column: Column
) -> None:
    rows = [{"text": "t", "hypothesis": said, "labels": place} for place, said in enumerate(("no", "yes"))]
    write_rows(tmp_path / f"{name}.jsonl.gz", rows)
    (task,) = btzsc_tasks(tmp_path, Sampling())

    assert column == column_of(_provenance(("imdb", "classification", "sentiment")), task.name, task.cluster)


def test_a_btzsc_text_without_exactly_one_true_hypothesis_is_refused(tmp_path: Path) -> None:
    rows = [{"text": "t", "hypothesis": said, "labels": 0} for said in "abc"]
    write_rows(tmp_path / "agnews.jsonl.gz", rows)

    with pytest.raises(ConfigError, match="--btzsc-entailment"):
        list(btzsc_tasks(tmp_path, Sampling()))


def test_the_report_has_columns_side_by_side_and_says_where_the_mix_was_worse(scorer: Scorer, tmp_path: Path) -> None:
    measured = _evaluated(scorer, tmp_path)
    alone = [replace(each, column=Column.NLI_ONLY, macro_f1=0.5) for each in measured]
    mixed = [
        replace(each, column=Column.CLUSTER_HELD_OUT, macro_f1=0.4 if each.task == "films" else 0.7)
        for each in measured
    ]
    report = Report("worker evaluate", (*alone, *mixed), (), {"m": "fake"}, ("a note",))

    write_report(tmp_path / "out", report)

    text = (tmp_path / "out" / "report.md").read_text()
    assert text == markdown(report)
    assert "better than NLI alone on 2 of 3 sets; not on films." in text
    assert "| set | cluster | classes | texts | NLI only | zero-shot (cluster held out) |" in text
    assert "**0.600** (n = 3)" in text
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 0.5 == found["means"]["NLI only"]["macro_f1"]
    assert found == json.loads(json.dumps(as_object(report)))
    pictures = sorted(file.name for file in (tmp_path / "out" / "pictures").iterdir())
    assert 3 * 2 * 2 == len(pictures)
    assert all((tmp_path / "out" / "pictures" / name).read_text().startswith("<svg") for name in pictures)


def test_models_of_several_recipes_stand_in_columns_of_their_own(scorer: Scorer, tmp_path: Path) -> None:
    measured = _evaluated(scorer, tmp_path)
    other = [replace(each, recipe="other", macro_f1=0.25) for each in measured]

    text = markdown(Report("worker evaluate", (*measured, *other), (), {}, ()))

    assert "| set | cluster | classes | texts | m: as it is | other: as it is |" in text
    assert "**0.250** (n = 3) |" in text


def test_a_cluster_has_every_figure_in_a_column_of_its_own(scorer: Scorer, tmp_path: Path) -> None:
    measured = [
        replace(each, accuracy=share, balanced_accuracy=share / 2, pairs=100, pairs_per_second=speed)
        for each, share, speed in zip(_evaluated(scorer, tmp_path), (0.2, 0.6, 0.8), (50.0, 100.0, 25.0), strict=True)
    ]
    report = Report("worker evaluate", tuple(measured), (), {}, ())

    found = as_object(report)["clusters"]

    assert isinstance(found, dict)
    sentiment, intent = (found["as it is"][cluster] for cluster in ("sentiment", "intent"))
    assert [0.4, 0.2, 200 / 3] == pytest.approx(
        [sentiment[name] for name in ("accuracy", "balanced_accuracy", "pairs_per_second")]
    )
    assert [1, 0.8, 25.0] == [intent[name] for name in ("sets", "accuracy", "pairs_per_second")]
    (row,) = (line for line in markdown(report).splitlines() if line.startswith("| sentiment | as it is | 2 |"))
    assert row.endswith(f"| 0.200 | 0.400 | {sentiment['ece']:.3f} | 67 |")
    assert "| **all** | as it is | 3 |" in markdown(report)


def _evaluated(scorer: Scorer, folder: Path) -> Sequence[TaskFigures]:
    table = read_table(write_world(folder / "world"))
    tasks = [table_task(each, folder / "world", Sampling(texts=20)) for each in table.classification]
    return [evaluate_task(scorer, task, ("m", None)) for task in tasks if task is not None]
