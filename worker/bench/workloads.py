"""What the benches classify: texts of a given length distribution, labels, and how many texts come twice.

Without files the texts are made: words of the demo's events, in the order a seeded draw gives, as many as the length
distribution of the workload asks for. They say nothing, but cost what real ones cost.
"""

import gzip
import itertools
import json
import random
import string
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worker.bundled.demo import demo_events
from worker.errors import ConfigError

Kind = Literal["short", "mixed", "long"]
KINDS: Final[tuple[Kind, ...]] = ("short", "mixed", "long")
_TOKENS: Final[dict[Kind, tuple[tuple[float, int], ...]]] = {
    "short": ((0, 1), (0.1, 12), (0.25, 18), (0.5, 26), (0.75, 32), (0.9, 36), (0.95, 39), (0.99, 46), (1, 58)),
    "mixed": ((0, 1), (0.1, 8), (0.25, 13), (0.5, 24), (0.75, 44), (0.9, 153), (0.95, 285), (0.99, 441), (1, 966)),
    "long": ((0, 9), (0.1, 39), (0.25, 71), (0.5, 136), (0.75, 258), (0.9, 451), (0.95, 492), (0.99, 666), (1, 1160)),
}
"""Quantiles of the tokens of a text, measured with the bundled tokenizer: tweets of three public test sets; 4,300 texts
drawn evenly from 30 public test sets; the test half of 20 newsgroups."""
_TOKENS_PER_WORD: Final = 1.18
"""Of the words of the demo's events."""
_LEAST_POOL: Final = 3000
_SHORT_CHARACTERS: Final = 280
_LONG_CHARACTERS: Final = 1000
"""What `short` and `long` mean for texts that come from files."""
_SUBJECTS: Final = (
    "payment", "delivery", "account", "order", "subscription", "app", "website", "invoice",
    "card", "travel", "hotel", "flight", "phone", "insurance", "loan",
)  # fmt: skip
_CONCERNS: Final = (
    "question", "problem", "complaint", "cancellation", "change", "delay", "fraud", "praise", "refund", "information",
)  # fmt: skip
_LETTERS: Final = string.ascii_lowercase
_DEMO_EVENTS: Final = 350
MOST_LABELS: Final = len(_SUBJECTS) * len(_CONCERNS)


@dataclass(frozen=True, slots=True)
class Workload:
    """What one run classifies."""

    kind: Kind
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    repeated: float
    """Share of the texts that are copies of earlier ones."""
    origin: str
    """Where the texts come from, for the report."""

    @property
    def pairs(self) -> int:
        """Pairs that classifying it naively takes."""
        return len(self.texts) * len(self.labels)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a workload is made."""

    kind: Kind = "mixed"
    texts: int = 500
    labels: int = 8
    repeated: float = 0.0
    source: Path | None = None
    """A file or a folder of texts; None: made ones."""
    seed: int = 0


def workload(recipe: Recipe) -> Workload:
    """The workload of `recipe`; the same for the same seed and files.

    Raises:
        ConfigError: the files hold no text of that kind.
    """
    if recipe.source is None:
        texts, origin = made_texts(recipe.kind, recipe.texts, recipe.seed), "made, by measured length quantiles"
    else:
        texts, origin = drawn_texts(recipe.source, recipe.kind, recipe.texts, recipe.seed), recipe.source.name
    repeated = with_repeats(texts, recipe.repeated, recipe.seed)
    return Workload(recipe.kind, tuple(repeated), label_names(recipe.labels), recipe.repeated, origin)


def made_texts(kind: Kind, count: int, seed: int) -> list[str]:
    """`count` texts with the lengths of `kind`, no two alike."""
    draw = random.Random(f"{kind}/{seed}")  # noqa: S311  a draw that can be repeated
    words = _demo_words()
    # Evenly over the distribution: few texts then cost what many do.
    shares = [(place + 0.5) / count for place in range(count)]
    draw.shuffle(shares)
    texts: dict[str, None] = {}
    for share in shares:
        length = max(1, round(_quantile(_TOKENS[kind], share) / _TOKENS_PER_WORD))
        text = " ".join(draw.choices(words, k=length))
        # A text of a word or two is soon drawn again; a number keeps it one of its own.
        texts[text if text not in texts else f"{text} {len(texts)}"] = None
    return list(texts)


def drawn_texts(source: Path, kind: Kind, count: int, seed: int) -> list[str]:
    """`count` texts of the length that `kind` means, drawn evenly from the files of `source`.

    A file is lines of JSON objects with a `text` (`.jsonl`, also `.gz`) or lines of text. Where there are fewer texts,
    they come again.

    Raises:
        ConfigError: there is none.
    """
    draw = random.Random(seed)  # noqa: S311  as above
    pools = [draw.sample(pool, len(pool)) for file in _files(source) if (pool := _of_kind(_read(file), kind))]
    if not pools:
        raise ConfigError(f"--texts: {source}: no text that the workload `{kind}` means")
    texts = [pool[turn] for turn in range(max(map(len, pools))) for pool in pools if turn < len(pool)]
    texts = [texts[number % len(texts)] for number in range(max(count, _LEAST_POOL))]
    # As many of each length as there are in the pool: few texts then cost what many do.
    texts.sort(key=len)
    chosen = [texts[int((place + 0.5) * len(texts) / count)] for place in range(count)]
    draw.shuffle(chosen)
    return chosen


def with_repeats(texts: Sequence[str], share: float, seed: int) -> list[str]:
    """The texts with about `share` of them, never the first, replaced by an earlier one that was kept."""
    draw = random.Random(f"repeats/{seed}")  # noqa: S311  as above
    kept: list[str] = []
    result: list[str] = []
    for text in texts:
        if kept and draw.random() < share:
            result.append(draw.choice(kept))
        else:
            kept.append(text)
            result.append(text)
    return result


def marked(texts: Sequence[str], run: int) -> tuple[str, ...]:
    """The texts of one run: two letters ahead of each, so that no run is answered from what another one left behind.

    Two tokens, whatever the run; texts that are alike within a run stay so.
    """
    first, second = divmod(run % len(_LETTERS) ** 2, len(_LETTERS))
    return tuple(f"{_LETTERS[first]} {_LETTERS[second]} {text}" for text in texts)


def label_names(count: int) -> tuple[str, ...]:
    """`count` different labels.

    Raises:
        ConfigError: there are no so many.
    """
    if not 1 <= count <= MOST_LABELS:
        raise ConfigError(f"--labels: expected 1 to {MOST_LABELS}, not {count}")
    places = (divmod(number, len(_SUBJECTS)) for number in range(count))
    return tuple(f"{_SUBJECTS[place]} {_CONCERNS[(turn + place) % len(_CONCERNS)]}" for turn, place in places)


def _demo_words() -> list[str]:
    values = (event.value for event in demo_events(_DEMO_EVENTS) if event.breaks is None and event.value is not None)
    texts = (str(json.loads(value).get("text", "")) for value in values)
    return [word for text in texts for word in text.split()]


def _quantile(points: Sequence[tuple[float, int]], share: float) -> float:
    for (low, least), (high, most) in itertools.pairwise(points):
        if share <= high:
            return least + (most - least) * (share - low) / (high - low)
    return float(points[-1][1])


def _of_kind(texts: Iterator[str], kind: Kind) -> list[str]:
    least, most = {"short": (0, _SHORT_CHARACTERS), "mixed": (0, sys.maxsize), "long": (_LONG_CHARACTERS, sys.maxsize)}[
        kind
    ]
    return [text for text in texts if least <= len(text) <= most]


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise ConfigError(f"--texts: {source}: there is no such file or folder")
    if source.is_file():
        return [source]
    tests = sorted(source.glob("*.test.jsonl.gz"))
    return tests or sorted(file for file in source.iterdir() if file.suffix in {".jsonl", ".gz", ".txt"})


def _read(file: Path) -> Iterator[str]:
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    is_json = ".jsonl" in file.suffixes
    for line in content.decode().split("\n"):  # not splitlines: JSON texts may hold its other line ends
        text = str(json.loads(line)["text"]) if is_json and line.strip() else line
        if text.strip():
            yield text
