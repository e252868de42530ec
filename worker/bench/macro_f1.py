"""Macro-F1 of `worker classify` on labelled texts, as a user would run it.

`python -m worker.bench.macro_f1 --data FOLDER_OF_TEST_SETS bbc_news sms_spam twitter_airline`. A test set is a file
`<name>.test.jsonl.gz` of lines `{"text": …, "label": …}`; its classes are the labels, under `agreement`'s templates.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.bench.agreement import DEFAULT_TEMPLATE, SUFFIX, TEMPLATES


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text."""

    text: str
    label: str


def draw(path: Path, texts: int, seed: int) -> list[Row]:
    """`texts` rows of the file (all, where it has fewer), drawn with `seed`."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [Row(each["text"], each["label"]) for each in map(json.loads, stream)]
    return random.Random(seed).sample(rows, min(texts, len(rows)))  # noqa: S311  a draw that can be repeated


def macro_f1(truth: Sequence[str], predicted: Sequence[str | None]) -> float:
    """The mean over the classes of `truth` of F1 = 2 TP / (2 TP + FP + FN), in [0, 1]; None is a wrong answer."""
    scores = []
    for label in sorted(set(truth)):
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        wrong = sum((t == label) != (p == label) for t, p in zip(truth, predicted, strict=True))
        scores.append(2 * hits / (2 * hits + wrong))
    return sum(scores) / len(scores)


def classify(rows: Sequence[Row], template: str, arguments: Sequence[str]) -> list[str | None]:
    """The label that `worker classify --json --file` gives each row's text; None where it refuses."""
    names = {label.replace("_", " "): label for label in sorted({row.label for row in rows})}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": row.text}) + "\n" for row in rows), encoding="utf-8")
        command = [sys.executable, "-m", "worker", "classify", "--json", "--file", str(file)]
        command += ["--labels", ",".join(names), "--template", template, *arguments]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True).stdout
    answers = [json.loads(line) for line in output.splitlines()]
    return [names.get(answer.get("label")) for answer in answers]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per set; options that are not known go to `worker classify`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("sets", nargs="+")
    options, passed_on = parser.parse_known_args(arguments)
    for name in options.sets:
        rows = draw(options.data / f"{name}{SUFFIX}", options.texts, options.seed)
        template = next((template for part, template in TEMPLATES.items() if part in name), DEFAULT_TEMPLATE)
        predicted = classify(rows, template, passed_on)
        score = macro_f1([row.label for row in rows], predicted)
        sys.stdout.write(f"{name}: {len(rows)} texts, macro-F1 {100 * score:.1f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
