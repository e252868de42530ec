"""What two ways to leave pairs out would save and cost: stopping at the first sure label, and trusting token vectors.

`python -m worker.bench.early_stop --data FOLDER_OF_TEST_SETS`. A test set is a file `<name>.test.jsonl.gz` of lines
`{"text": …, "label": …}`. The model scores every label of every text once; what would have been left out is counted
afterwards. Labels one after another stop where one of them is entailed with more than a threshold, by itself; or no
pair is run at all where the likest label by token vectors (docs/shortlists.md) leads the second by more than a margin.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from tokenizers import Tokenizer

from worker.bench.agreement import SUFFIX, Case, draw_cases, macro_f1, score_cases
from worker.bench.agreement import Options as Draw
from worker.bench.figures import report_of
from worker.engines.artifact import open_folder
from worker.engines.load import EngineChoice, load_engine
from worker.engines.token_vectors import load_token_vectors
from worker.errors import EngineError
from worker.pipeline.evidence import Float64Array
from worker.pipeline.shortlist import NO_VECTORS, index_of, vector_of
from worker.types import Float32Array, Int32Array, NliHead, TokenVectors

THRESHOLDS: Final = (0.9, 0.95, 0.99)
SHARES: Final = (0.05, 0.1, 0.2, 0.4)
"""Of the texts, how many the token vectors are to decide by themselves."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A text with all that is known of its candidate labels, each array in their order."""

    case: Case
    likeness: Float32Array
    """float32 [candidates]: the cosine of text and label by token vectors."""
    entailment: Float32Array
    """float32 [candidates]: the logit that decides between labels."""
    alone: Float64Array
    """float64 [candidates]: how likely each is entailed, by itself."""

    @property
    def top(self) -> int:
        """The best label of the full pass; of equals the one listed first."""
        return int(self.entailment.argmax())

    @property
    def likest_first(self) -> list[int]:
        """The labels as a shortlist ranks them; of equals the one listed first."""
        return [int(place) for place in np.argsort(-self.likeness, kind="stable")]

    @property
    def lead(self) -> float:
        """By how much the likest label leads the second; infinite without a second."""
        if len(self.likeness) == 1:
            return float("inf")
        second, first = np.sort(self.likeness)[-2:]
        return float(first - second)


ORDERS: Final[Mapping[str, Callable[[Scored], Sequence[int]]]] = {
    "likest first": lambda text: text.likest_first,
    "as listed": lambda text: range(len(text.alone)),
}


@dataclass(frozen=True, slots=True)
class Stopping:
    """Labels one after another, until one is sure. Shares lie in [0, 1], F1 differences are in points of 100."""

    order: str
    threshold: float
    stopped: float
    """Share of texts with a label above the threshold."""
    pairs_run: float
    """Share of the pairs of the full pass."""
    other_top_label: float
    """Share of texts with another top label than in the full pass."""
    macro_f1_difference: float
    """To the full pass, the mean over sets."""


@dataclass(frozen=True, slots=True)
class Trusting:
    """Texts that token vectors decide without a pair. Shares lie in [0, 1], F1 differences are in points of 100."""

    aimed: float
    """Share of texts for which the margin was chosen."""
    margin: float
    accepted: float
    """Share of texts above the margin."""
    otherwise: float
    """Share of these where the full pass says something else; 0 where there are none."""
    pairs_run: float
    """Share of the pairs of the full pass."""
    macro_f1_difference: float
    """To the full pass, the mean over sets."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run."""

    texts: int
    pairs: int
    sets: int
    engine: str
    precision: str
    macro_f1: float
    """Of the full pass, in points of 100, the mean over sets."""
    vectors_macro_f1: float
    """The same of the token vectors alone."""
    stopping: tuple[Stopping, ...]
    trusting: tuple[Trusting, ...]


def likely_alone(logits: Float32Array, head: NliHead) -> Float64Array:
    """How likely each label is entailed by itself, as with `multi_label`; logits are float32 [labels, classes]."""
    against = logits[:, head.contradiction].astype(np.float64)
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (logits[:, head.entailment] - against))))


def run_until_sure(alone: Float64Array, order: Sequence[int], threshold: float) -> tuple[int, int | None]:
    """How many labels are scored in that order, and the first one above the threshold, if any."""
    for count, place in enumerate(order, start=1):
        if alone[place] > threshold:
            return count, place
    return len(order), None


def stop_early(texts: Sequence[Scored], order: str, threshold: float) -> Stopping:
    """What becomes of `texts` where each is scored in that of `ORDERS` until a label is sure, which it then has."""
    runs = [run_until_sure(text.alone, ORDERS[order](text), threshold) for text in texts]
    tops = [text.top if place is None else place for text, (_, place) in zip(texts, runs, strict=True)]
    return Stopping(
        order=order,
        threshold=threshold,
        stopped=_share([place is not None for _, place in runs]),
        pairs_run=sum(count for count, _ in runs) / sum(len(text.alone) for text in texts),
        other_top_label=_share([text.top != top for text, top in zip(texts, tops, strict=True)]),
        macro_f1_difference=mean_macro_f1(texts, tops) - mean_macro_f1(texts, [text.top for text in texts]),
    )


def margin_for(leads: Sequence[float], share: float) -> float:
    """The margin above which `share` of the leads lie; fewer where leads are equal."""
    ordered = sorted(leads, reverse=True)
    count = round(share * len(ordered))
    return ordered[count] if count < len(ordered) else float("-inf")


def trust_vectors(texts: Sequence[Scored], share: float) -> Trusting:
    """What becomes of `texts` where the likest label is taken without a pair in `share` of them, the clearest ones."""
    margin = margin_for([text.lead for text in texts], share)
    is_trusted = [text.lead > margin for text in texts]
    tops = [text.likest_first[0] if trusted else text.top for text, trusted in zip(texts, is_trusted, strict=True)]
    rest = [len(text.alone) for text, trusted in zip(texts, is_trusted, strict=True) if not trusted]
    changed = [top != text.top for text, top, trusted in zip(texts, tops, is_trusted, strict=True) if trusted]
    return Trusting(
        aimed=share,
        margin=margin,
        accepted=_share(is_trusted),
        otherwise=_share(changed),
        pairs_run=sum(rest) / sum(len(text.alone) for text in texts),
        macro_f1_difference=mean_macro_f1(texts, tops) - mean_macro_f1(texts, [text.top for text in texts]),
    )


def mean_macro_f1(texts: Sequence[Scored], tops: Sequence[int]) -> float:
    """Macro-F1 in points of 100 of these top labels, the mean over the sets of the texts."""
    decided: dict[str, list[tuple[str, str]]] = {}
    for text, top in zip(texts, tops, strict=True):
        decided.setdefault(text.case.set_name, []).append((text.case.label, text.case.candidates[top]))
    return sum(map(macro_f1, decided.values())) / len(decided)


def likeness_of(vectors: TokenVectors, text: Int32Array, labels: Sequence[Int32Array]) -> Float32Array:
    """float32 [labels]: the cosines by which a shortlist of these labels would be drawn up for the text."""
    index = index_of(vectors, tuple(range(len(labels))), labels)
    return index.likeness(vector_of(vectors, text)[np.newaxis])


def report(texts: Sequence[Scored], stamp: tuple[str, str]) -> Report:
    """All figures of `texts`; `stamp` is engine and precision of the full pass."""
    return Report(
        texts=len(texts),
        pairs=sum(len(text.alone) for text in texts),
        sets=len({text.case.set_name for text in texts}),
        engine=stamp[0],
        precision=stamp[1],
        macro_f1=mean_macro_f1(texts, [text.top for text in texts]),
        vectors_macro_f1=mean_macro_f1(texts, [text.likest_first[0] for text in texts]),
        stopping=tuple(stop_early(texts, order, threshold) for order in ORDERS for threshold in THRESHOLDS),
        trusting=tuple(trust_vectors(texts, share) for share in SHARES),
    )


def measure(data: Path, draw: Draw, model: str) -> Report:
    """Score the drawn texts once and count. Blocks for a minute or more.

    Raises:
        FileNotFoundError: there is no test set.
        WorkerError: the model cannot be used, or has no token vectors.
    """
    cases = draw_cases(data, draw)
    loaded = load_engine(EngineChoice(model))
    try:
        vectors = load_token_vectors(loaded.tokenizer_file)
        if vectors is None:
            raise EngineError(NO_VECTORS)
        info = loaded.engine.info
        logits = score_cases(loaded.engine, open_folder(loaded.model_dir), cases, draw.max_pair_tokens)
    finally:
        loaded.engine.close()
    encode = _encoder(loaded.tokenizer_file)
    texts = []
    for case, found in zip(cases, logits, strict=True):
        labels = [encode(label.replace("_", " ")) for label in case.candidates]
        likeness = likeness_of(vectors, encode(case.text)[: min(draw.max_pair_tokens, info.max_pair_tokens)], labels)
        texts.append(Scored(case, likeness, found[:, info.head.entailment], likely_alone(found, info.head)))
    return report(texts, (info.stamp.engine, info.stamp.precision))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line and print two tables."""
    usual = Draw()
    parser = argparse.ArgumentParser(prog="python -m worker.bench.early_stop", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder of *{SUFFIX}")
    parser.add_argument("--texts", type=int, default=usual.texts)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args(arguments)
    # What a model says while it is loaded does not belong on stdout.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    found = measure(asked.data, Draw(texts=asked.texts, seed=asked.seed), asked.model)
    lines = [json.dumps(report_of(asdict(found)))] if asked.json else _lines(found)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _encoder(tokenizer_file: Path) -> Callable[[str], Int32Array]:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims) if claims else 0.0


def _lines(found: Report) -> list[str]:
    size = f"{found.texts} texts of {found.sets} sets, {found.pairs} pairs, {found.engine} {found.precision}"
    return [
        f"{size}; macro-F1 {found.macro_f1:.1f}, of token vectors alone {found.vectors_macro_f1:.1f}",
        "",
        "| labels | stop above | texts stopped | pairs run | other top label | macro-F1 |",
        "|---|---|---|---|---|---|",
        *(
            f"| {each.order} | {each.threshold} | {100 * each.stopped:.1f} % | {100 * each.pairs_run:.1f} % "
            f"| {100 * each.other_top_label:.1f} % | {each.macro_f1_difference:+.1f} |"
            for each in found.stopping
        ),
        "",
        "| no pair above a margin of | texts accepted | pairs run | of those otherwise | macro-F1 |",
        "|---|---|---|---|---|",
        *(
            f"| {each.margin:.3f} | {100 * each.accepted:.1f} % | {100 * each.pairs_run:.1f} % "
            f"| {100 * each.otherwise:.1f} % | {each.macro_f1_difference:+.1f} |"
            for each in found.trusting
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
