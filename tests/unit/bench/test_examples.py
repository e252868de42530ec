"""The figures of the example label schemas are what they are called, and every sample fits its schema."""

from pathlib import Path

import pytest

from worker.bench.examples import Quality, quality, read_example, table

SCHEMAS = Path(__file__).parents[3] / "schemas"


def sets(*labels: str) -> list[frozenset[str]]:
    return [frozenset(each.split()) for each in labels]


def test_the_figures_are_those_computed_by_hand() -> None:
    found = quality(sets("a", "a b", "b", ""), sets("a", "a", "a", ""), pairs=8)
    # a: 2 hits, 1 too many; b: 2 missed.
    assert Quality(texts=4, exact=0.5, macro_f1=(4 / 5 + 0.0) / 2, empty=0.25, pairs_per_text=2.0) == found


def test_the_table_has_a_line_for_each_schema_by_name() -> None:
    lines = table({"b": Quality(4, 0.5, 0.4, 0.25, 2.0), "a": Quality(10, 1.0, 1.0, 0.0, 3.5)}).splitlines()
    assert "| `a` | 10 | 100 % | 100 | 0 % | 3.5 |" == lines[2]
    assert "| `b` | 4 | 50 % | 40 | 25 % | 2.0 |" == lines[3]


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_has_a_sample_whose_labels_are_its_own_and_all_occur(file: Path) -> None:
    example = read_example(file)
    assert len(example.texts) >= 24
    assert len(set(example.texts)) == len(example.texts)
    wanted = {node.label.name for node in example.schema.tree.nodes if not node.label.children}
    assert wanted == frozenset().union(*example.truth)
    assert f"`{example.schema.name}`" in (SCHEMAS / "README.md").read_text(encoding="utf-8")
