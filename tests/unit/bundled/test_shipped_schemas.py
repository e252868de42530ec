"""The label schemas that ship with the demo and as examples."""

from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
BUNDLED = REPOSITORY / "worker" / "bundled" / "schemas"
SHIPPED = sorted([*BUNDLED.glob("*.yaml"), *(REPOSITORY / "schemas").glob("*.yaml")])


def document(path: Path) -> dict[str, Any]:
    """The schema in a file, as given."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def label_names(path: Path) -> list[str]:
    """The names of a schema's labels, in order."""
    return [label["name"] for label in document(path)["labels"]]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_shipped_schema_has_a_name_of_its_file_one_gap_per_template_and_labels_of_their_own(path: Path) -> None:
    schema = document(path)
    names = label_names(path)

    assert schema["name"] == path.stem.split(".")[0]
    assert [template.count("{}") for template in schema["hypothesis_templates"]] == [1] * len(
        schema["hypothesis_templates"]
    )
    assert len(set(names)) == len(names) >= 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_only_a_single_label_schema_abstains(path: Path) -> None:
    schema = document(path)

    assert not (schema["multi_label"] and "abstain" in schema)


def test_one_name_and_version_is_one_document_wherever_it_is_shipped() -> None:
    documents: dict[tuple[str, int], dict[str, Any]] = {}

    for path in SHIPPED:
        schema = document(path)
        assert documents.setdefault((schema["name"], schema["version"]), schema) == schema


def test_the_second_version_of_the_demo_has_every_label_of_the_first_and_one_more() -> None:
    first, second = BUNDLED / "support-intent.yaml", BUNDLED / "support-intent.v2.yaml"

    assert (document(first)["version"], document(second)["version"]) == (1, 2)
    assert label_names(second)[:-1] == label_names(first)


def test_the_posts_of_the_demo_have_many_labels_each_with_a_threshold() -> None:
    posts = document(BUNDLED / "post-tags.yaml")

    assert posts["multi_label"] is True
    assert all(0 < label["threshold"] < 1 for label in posts["labels"])
