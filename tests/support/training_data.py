"""A small world to train in: two tasks that words decide, and pairs whose hypothesis follows where words repeat."""

import gzip
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from worker.types import JsonValue

WORDS = {"good": "good", "bad": "crash", "late": "late", "money": "refund"}
SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "reviews": ("sentiment", ("good", "bad")),
    "films": ("sentiment", ("good", "bad")),
    "tickets": ("intent", ("late", "money")),
}


def write_world(folder: Path, texts: int = 30) -> Path:
    """Data files and a table of them in `folder`; gives the table's file."""
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    tables: list[JsonValue] = []
    for name, (cluster, classes) in SETS.items():
        for split in ("train", "test"):
            rows = [
                {"text": f"the {WORDS[label]} app {name} {split} {number} {draw.randrange(999)}", "label": label}
                for number in range(texts)
                for label in classes
            ]
            write_rows(folder / f"{name}.{split}.jsonl.gz", rows)
        tables.append(
            {
                "name": name,
                "cluster": cluster,
                "train": f"{name}.train.jsonl.gz",
                "test": f"{name}.test.jsonl.gz",
                "licence": {"name": "made up", "ship": "no" if name == "films" else "yes"},
                "templates": ["this is {}", "this example is {}"],
                "inverted": ["this is not {}"],
                "labels": {label: WORDS[label] for label in classes},
            }
        )
    pairs = [
        {"premise": f"the {word} app {number}", "hypothesis": f"this is {other}", "label": _relation(word, other)}
        for number in range(texts)
        for word in WORDS.values()
        for other in draw.sample(sorted(WORDS.values()), 2)
    ]
    write_rows(folder / "pairs.jsonl.gz", pairs)
    nli = {
        "name": "pairs",
        "train": "pairs.jsonl.gz",
        "test": "pairs.jsonl.gz",
        "licence": {"name": "x", "ship": "yes"},
    }
    table = folder / "sets.yaml"
    table.write_text(yaml.safe_dump({"classification": tables, "nli": [nli]}), encoding="utf-8")
    return table


def write_recipe(folder: Path, **changes: JsonValue) -> Path:
    """A recipe of two short stages beside the table of `write_world`."""
    quick = {"learning_rate": 0.003, "batch_pairs": 8, "epochs": 2}
    recipe: dict[str, JsonValue] = {
        "name": "small",
        "sets": "sets.yaml",
        "seed": 7,
        "max_pair_tokens": 40,
        "stages": [
            {"name": "nli", "nli": {}, "optimisation": {**quick, "epochs": 1}},
            {"name": "mix", "nli": {"max_per_set": 40}, "classification": {"inverted": 0.2}, "optimisation": {**quick}},
        ],
        **changes,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


def write_rows(file: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Rows as JSON lines, gzipped; gives the file."""
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def _relation(word: str, other: str) -> str:
    return "entailment" if word == other else "neutral"
