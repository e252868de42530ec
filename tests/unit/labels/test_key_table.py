"""The page about label schemas."""

import re
from pathlib import Path

import yaml

from worker.labels.key_table import key_table, main, with_key_table
from worker.labels.schema import LabelSchema, parse_schema

PAGE = Path(__file__).parents[3] / "docs" / "label-schemas.md"


def test_the_page_holds_the_generated_table() -> None:
    """`python -m worker.labels.key_table` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_key_table(page)
    assert key_table() in page


def test_the_table_has_every_key_once() -> None:
    keys = re.findall(r"^\| `([^`]+)` \|", key_table(), re.MULTILINE)
    assert len(set(keys)) == len(keys)
    assert set(LabelSchema.model_fields) <= set(keys)
    assert {"labels[].children", "hierarchy.open_above", "long_text.aggregate", "calibration.bias"} <= set(keys)


def test_it_is_written_into_the_page_that_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"\n\|.*", "", PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    main([str(page)])
    assert PAGE.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_every_example_of_the_page_is_a_label_schema_or_a_part_of_one() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parts = [part for part in map(yaml.safe_load, examples) if part is not None and "topics" not in part]
    assert len(parts) >= 5
    for part in parts:
        parse_schema({"name": "a", "version": 1, "labels": [{"name": "x"}], **part}, "the page")
