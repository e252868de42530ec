"""What an instruction model reads: the text, a question, and every option of the decision."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from worker.types import Int32Array

if TYPE_CHECKING:
    from worker.pipeline.tokenization import PairTemplate

DEFAULT_QUESTION: Final = "Which sentence is true of this text?"
SEVERAL_LABELS: Final = "multi_label: an instruction model chooses one of several options; remove the key"
ONE_LABEL: Final = (
    "labels: an instruction model chooses one of several options; expected two beside each other at least"
)


def after_text(question: str, options: Sequence[str]) -> str:
    """What follows the text in a prompt; the OPTIONS block is that of FLAN (Wei et al. 2022, figure 3)."""
    return "\n".join(("", "", question, "OPTIONS:", *(f"- {option}" for option in options)))


def prompting(template: "PairTemplate", words: Int32Array) -> "PairTemplate":
    """`template` with `words` between the text and the special tokens after it; the option alone is of type 1."""
    middle = np.concatenate((words, template.middle)).astype(np.int32)
    return replace(
        template,
        prefix_types=np.zeros_like(template.prefix),
        middle=middle,
        middle_types=np.zeros_like(middle),
        suffix_types=np.ones_like(template.suffix),
        premise_type=0,
        hypothesis_type=1,
    )
