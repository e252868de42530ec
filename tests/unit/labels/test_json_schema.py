"""The JSON Schemas that are published."""

from pathlib import Path

import pytest

from worker.labels.json_schema import json_schemas, main

PUBLISHED = Path(__file__).parents[3] / "schemas" / "messages"


@pytest.mark.parametrize("name", sorted(json_schemas()))
def test_the_published_json_schema_is_the_generated_one(name: str) -> None:
    """`python -m worker.labels.json_schema` writes them."""
    assert json_schemas()[name] == (PUBLISHED / name).read_text(encoding="utf-8")


def test_they_are_written_into_the_folder_that_is_named(tmp_path: Path) -> None:
    main([str(tmp_path / "new")])
    assert sorted(json_schemas()) == sorted(file.name for file in (tmp_path / "new").iterdir())
