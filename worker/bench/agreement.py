"""How often an exported model decides as the float32 model it came from, on labelled texts.

`python -m worker.bench.agreement --model SAFETENSORS_FOLDER --data FOLDER_OF_TEST_SETS`. A test set is a file
`<name>.test.jsonl.gz` of lines `{"text": …, "label": …}`.
"""

import argparse
import dataclasses
import gzip
import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.base import Engine
from worker.engines.golden import TextPair, encode_pairs, join_batches
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.source import BUNDLED_FOLDER
from worker.types import Batch, Float32Array

SUFFIX: Final = ".test.jsonl.gz"
SMALL_SET_CLASSES: Final = 10
SURE_MARGIN: Final = 0.02
"""Float32 probability margin above which a changed decision counts."""
TEMPLATES: Final = {
    "review": "The review is {}.",
    "sst2": "The review is {}.",
    "rotten": "The review is {}.",
    "sentiment": "The sentiment of this text is {}.",
    "airline": "The sentiment of this text is {}.",
    "emotion": "This text expresses {}.",
    "isear": "This text expresses {}.",
}
"""Hypothesis templates by a part of the set's name; every other set gets the default."""
DEFAULT_TEMPLATE: Final = "This example is {}."


@dataclass(frozen=True, slots=True)
class Options:
    """What to draw."""

    texts: int = 2000
    seed: int = 0
    max_labels: int = 20
    """Candidate labels per text, the true one among them; a set with more classes has them drawn for each text."""
    max_pair_tokens: int = 128


@dataclass(frozen=True, slots=True)
class Case:
    """One text with its candidate labels."""

    set_name: str
    set_classes: int
    text: str
    label: str
    candidates: tuple[str, ...]

    def pairs(self) -> tuple[TextPair, ...]:
        """The text with each candidate's hypothesis."""
        parts = (template for part, template in TEMPLATES.items() if part in self.set_name)
        template = next(parts, DEFAULT_TEMPLATE)
        return tuple(TextPair(self.text, template.replace("{}", label.replace("_", " "))) for label in self.candidates)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was found; shares lie in [0, 1], F1 differences are in points of 100."""

    texts: int
    pairs: int
    sets: int
    same_small_sets: float
    """Share of texts with the same top label, over sets of at most 10 classes."""
    same_sure: float
    """The same over all sets, where the float32 probability margin is above 0.02."""
    same_all: float
    macro_f1_reference: float
    macro_f1_candidate: float
    macro_f1_difference: float
    """Mean over sets of candidate minus reference."""
    macro_f1_mean_absolute_difference: float
    max_logit_error: float
    mean_logit_error: float
    candidate_precision: str


def draw_cases(data: Path, options: Options) -> list[Case]:
    """Texts drawn evenly over the test sets in `data`; the same for the same seed.

    Raises:
        FileNotFoundError: `data` holds no test set.
    """
    files = sorted(data.glob(f"*{SUFFIX}"))
    if not files:
        message = f"{data}: no file *{SUFFIX}"
        raise FileNotFoundError(message)
    draw = random.Random(options.seed)  # noqa: S311  # a sample, not a secret
    cases: list[Case] = []
    for index, file in enumerate(files):
        rows = _read_rows(file)
        classes = sorted({label for _, label in rows})
        # Whole shares, and the rest of the division spread over the first sets.
        share = options.texts // len(files) + (index < options.texts % len(files))
        for text, label in draw.sample(rows, min(share, len(rows))):
            candidates = _candidates(draw, classes, label, options.max_labels)
            cases.append(Case(file.name.removesuffix(SUFFIX), len(classes), text, label, candidates))
    return cases


def encode_cases(folder: ModelFolder, cases: Sequence[Case], max_pair_tokens: int) -> tuple[Batch, ...]:
    """The pairs of all cases in their order, each a batch of its own."""
    cut = dataclasses.replace(folder, max_pair_tokens=min(max_pair_tokens, folder.max_pair_tokens))
    return encode_pairs(cut, [pair for case in cases for pair in case.pairs()])


def score_cases(engine: Engine, folder: ModelFolder, cases: Sequence[Case], max_pair_tokens: int) -> list[Float32Array]:
    """For each case its logits, float32 [candidates, classes]. Scored in batches of like length."""
    singles = encode_cases(folder, cases, max_pair_tokens)
    order = sorted(range(len(singles)), key=lambda index: len(singles[index].token_ids))
    logits = np.empty((len(singles), engine.info.head.classes), dtype=np.float32)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and _padded(singles[order[stop]].token_ids.size, stop + 1 - start, engine):
            stop += 1
        rows = order[start:stop]
        logits[rows] = engine.score(join_batches([singles[row] for row in rows])).logits
        start = stop
    return np.split(logits, np.cumsum([len(case.candidates) for case in cases])[:-1])


def compare(
    cases: Sequence[Case], reference: Sequence[Float32Array], candidate: Sequence[Float32Array], entailment: int
) -> dict[str, float]:
    """The figures of `Agreement` that come from logits."""
    tops = [
        (int(r[:, entailment].argmax()), int(c[:, entailment].argmax()))
        for r, c in zip(reference, candidate, strict=True)
    ]
    is_same = np.array([ours == theirs for ours, theirs in tops])
    is_small = np.array([case.set_classes <= SMALL_SET_CLASSES for case in cases])
    is_sure = np.array([_margin(row[:, entailment]) > SURE_MARGIN for row in reference])
    errors = np.abs(np.concatenate(reference) - np.concatenate(candidate))
    names = sorted({case.set_name for case in cases})
    f1 = np.array(
        [
            _set_f1([(case, top) for case, top in zip(cases, tops, strict=True) if case.set_name == name])
            for name in names
        ]
    )
    return {
        "same_small_sets": float(is_same[is_small].mean()) if is_small.any() else 1.0,
        "same_sure": float(is_same[is_sure].mean()) if is_sure.any() else 1.0,
        "same_all": float(is_same.mean()),
        "macro_f1_reference": float(f1[:, 0].mean()),
        "macro_f1_candidate": float(f1[:, 1].mean()),
        "macro_f1_difference": float((f1[:, 1] - f1[:, 0]).mean()),
        "macro_f1_mean_absolute_difference": float(np.abs(f1[:, 1] - f1[:, 0]).mean()),
        "max_logit_error": float(errors.max()),
        "mean_logit_error": float(errors.mean()),
    }


def measure(reference: ModelFolder, candidate: ModelFolder, data: Path, options: Options) -> Agreement:
    """Score the same drawn texts with both models: `reference` in float32 by PyTorch, `candidate` by OpenVINO."""
    cases = draw_cases(data, options)
    theirs = PyTorchEngine(reference, PyTorchOptions())
    expected = score_cases(theirs, reference, cases, options.max_pair_tokens)
    theirs.close()
    ours = OpenVinoEngine(candidate, OpenVinoOptions())
    found = score_cases(ours, candidate, cases, options.max_pair_tokens)
    ours.close()
    return Agreement(
        texts=len(cases),
        pairs=sum(len(case.candidates) for case in cases),
        sets=len({case.set_name for case in cases}),
        candidate_precision=ours.info.stamp.precision,
        **compare(cases, expected, found, reference.head.entailment),
    )


def macro_f1(pairs: Iterable[tuple[str, str]]) -> float:
    """Macro-F1 in points of 100 of (true, predicted) labels, over the labels that occur in either."""
    rows = list(pairs)
    names = {name for row in rows for name in row}
    scores = []
    for name in names:
        hits = sum(true == name == predicted for true, predicted in rows)
        claims = sum((true == name) + (predicted == name) for true, predicted in rows)
        scores.append(2 * hits / claims)
    return 100 * sum(scores) / len(scores)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line and print it."""
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m worker.bench.agreement", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with the original model.safetensors")
    parser.add_argument(
        "--candidate", type=Path, default=BUNDLED_FOLDER, help="folder with openvino_model.xml (bundled)"
    )
    parser.add_argument("--data", type=Path, required=True, help=f"folder of *{SUFFIX}")
    parser.add_argument("--texts", type=int, default=usual.texts)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--max-labels", type=int, default=usual.max_labels)
    parser.add_argument("--max-pair-tokens", type=int, default=usual.max_pair_tokens)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args(arguments)
    options = Options(asked.texts, asked.seed, asked.max_labels, asked.max_pair_tokens)
    found = dataclasses.asdict(measure(open_folder(asked.model), open_folder(asked.candidate), asked.data, options))
    lines = [json.dumps(found)] if asked.json else [f"{name:36} {value}" for name, value in found.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _read_rows(file: Path) -> list[tuple[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return [(str(row["text"]), str(row["label"])) for row in rows]


def _candidates(draw: random.Random, classes: Sequence[str], label: str, limit: int) -> tuple[str, ...]:
    if len(classes) <= limit:
        return tuple(classes)
    others = draw.sample([name for name in classes if name != label], limit - 1)
    return tuple(sorted((label, *others)))


def _padded(longest: int, pairs: int, engine: Engine) -> bool:
    """Whether so many pairs of that length still fit the engine's budget."""
    return longest * pairs <= engine.info.token_budget


def _margin(entailment: Float32Array) -> float:
    """Softmax probability of the winner minus that of the runner-up; 1 without one."""
    if len(entailment) == 1:
        return 1.0
    odds = np.exp(entailment.astype(np.float64) - entailment.max())
    second, first = np.sort(odds / odds.sum())[-2:]
    return float(first - second)


def _set_f1(rows: Sequence[tuple[Case, tuple[int, int]]]) -> tuple[float, float]:
    """Macro-F1 of the reference and of the candidate on one set."""
    return (
        macro_f1((case.label, case.candidates[top[0]]) for case, top in rows),
        macro_f1((case.label, case.candidates[top[1]]) for case, top in rows),
    )


if __name__ == "__main__":
    raise SystemExit(main())
