"""One row per text for a model that scores all labels in one pass: labels, each after its token, beside the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from worker.errors import EngineError, ErrorCode, MessageError, Stage
from worker.pipeline.joining import PairTemplate
from worker.types import Int32Array, LabelRow

LABEL_TYPE: Final = 1
"""The type of the token before each label: what marks a label is never read off a text's own words."""
TEXT_TYPE: Final = 2
"""The type of the token after the last label."""
NOTHING: Final[Int32Array] = np.empty(0, np.int32)
"""What follows the text as hypothesis: nothing, all labels are in the template."""
_SAMPLES: Final = ("a b", "c d")


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Where the tokens of one model's rows stand."""

    row: LabelRow
    before: Int32Array
    """What the tokenizer puts before any sequence, int32 [n]."""
    after: Int32Array
    """What it puts after it."""

    @classmethod
    def learn(cls, tokenizer: Tokenizer, row: LabelRow) -> "LabelRows":
        """The layout, read off encoded sequences.

        Raises:
            EngineError: the tokenizer lacks the tokens of `row`, or does not read what stands between them by itself.
        """
        label, text = (tokenizer.id_to_token(token) for token in (row.label_token, row.text_token))
        if label is None or text is None:
            raise EngineError("the tokenizer lacks the tokens that mark labels: it is not that of a GLiClass model")
        ids = [tokenizer.encode(sample, add_special_tokens=False).ids for sample in _SAMPLES]
        whole = tokenizer.encode(f"{label}{_SAMPLES[0]}{text}{_SAMPLES[1]}", add_special_tokens=False).ids
        if whole != [row.label_token, *ids[0], row.text_token, *ids[1]]:
            raise EngineError("the tokenizer reads a label differently after its token: that is not supported")
        encoding = tokenizer.encode(_SAMPLES[0])
        inside = [place for place, of in enumerate(encoding.sequence_ids) if of is not None]
        around = np.array(encoding.ids, np.int32)
        return cls(row, around[: inside[0]], around[inside[-1] + 1 :])

    @property
    def blank(self) -> PairTemplate:
        """What stands around a text and a single label: the least that a row may be."""
        return self.template([NOTHING])

    def template(self, labels: Sequence[Int32Array]) -> PairTemplate:
        """What stands around a text that is asked about `labels`, each as token ids.

        Raises:
            MessageError: the model has not so many places for labels.
        """
        most = self.row.most_labels
        if most is not None and len(labels) > most:
            reason = f"{len(labels)} hypotheses in one decision; this model has places for {most}"
            raise MessageError(ErrorCode.LABELS_INVALID, Stage.TOKENIZE, reason)
        token = np.array([self.row.label_token], np.int32)
        marked = np.concatenate([part for label in labels for part in (token, label)] + [[self.row.text_token]])
        types = np.zeros(len(marked), np.int32)
        types[np.cumsum([0, *(1 + len(label) for label in labels)])] = [LABEL_TYPE] * len(labels) + [TEXT_TYPE]
        prefix, suffix = (_typed(ids) for ids in (self.before, self.after))
        if self.row.is_text_last:
            prefix = (np.concatenate([prefix[0], marked]), np.concatenate([prefix[1], types]))
        else:
            suffix = (np.concatenate([marked, suffix[0]]), np.concatenate([types, suffix[1]]))
        return PairTemplate(
            prefix[0].astype(np.int32),
            prefix[1].astype(np.int32),
            NOTHING,
            NOTHING,
            suffix[0].astype(np.int32),
            suffix[1].astype(np.int32),
            premise_type=0,
            hypothesis_type=0,
        )


def _typed(ids: Int32Array) -> tuple[Int32Array, Int32Array]:
    return ids, np.zeros_like(ids)
