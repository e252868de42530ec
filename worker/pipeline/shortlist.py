"""Which labels of a large set come into question for a text: a look at token vectors instead of a pair per label.

A text is the sum of the vectors of its tokens, a label that of the words that stand for it; their cosine ranks the
labels of a stage. No model runs, and no text is tokenised for it a second time.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.labels.parts import Label
from worker.labels.schema import LabelSchema
from worker.pipeline.planning import PairPlan
from worker.types import Float32Array, Int32Array, Shortlist, TokenVectors

LABELS_KEPT = 32_768
"""Labels of which the vectors are kept, over all schemas: 17 MB at 128 dimensions."""
NO_VECTORS = (
    "shortlist: this model has no token vectors; remove the key, or write them with "
    "`python -m worker.engines.token_vectors MODEL_FOLDER`"
)


@dataclass(frozen=True, slots=True)
class LabelIndex:
    """The labels of one stage as vectors."""

    nodes: tuple[int, ...]
    """The labels, as indices into the schema's tree."""
    vectors: Float32Array
    """float32 [labels, dimensions], each of length 1 or 0."""

    def nearest(self, windows: Float32Array, count: int) -> tuple[int, ...]:
        """The `count` labels that are likest to any of the windows, float32 [windows, dimensions]; rising.

        Of equals the one listed first.
        """
        chosen = np.sort(np.argsort(-self.likeness(windows), kind="stable")[:count])
        return tuple(self.nodes[place] for place in chosen.tolist())

    def likeness(self, windows: Float32Array) -> Float32Array:
        """float32 [labels]: the cosine of each label and the window that is nearest to it."""
        return np.asarray((self.vectors @ windows.T).max(axis=1))


class Shortlister:
    """Draws up the shortlists of all schemas that ask for one. Thread-safe."""

    def __init__(
        self,
        vectors: TokenVectors,
        encode: Callable[[str], Int32Array],
        *,
        audit_every: int = 0,
        labels_kept: int = LABELS_KEPT,
    ) -> None:
        """`encode` gives the tokens of a label's words; one text in `audit_every` is scored whole (0: none)."""
        self._vectors = vectors
        self._encode = encode
        self._audit_every = audit_every
        self._most_labels = labels_kept
        self._lock = threading.Lock()
        self._indexes: OrderedDict[str, Mapping[int | None, LabelIndex]] = OrderedDict()
        self._labels = 0

    @property
    def labels_kept(self) -> int:
        """Labels of which the vectors are kept now."""
        return self._labels

    def prepare(self, schema: LabelSchema) -> None:
        """Have the vectors of the labels of `schema` ready before a message needs them."""
        if schema.shortlist is not None:
            self._index_of(schema)

    def choose(self, plan: PairPlan, windows: Sequence[Int32Array], affordable_pairs: int) -> Shortlist | None:
        """The labels to score of the stage that `plan` plans, for a text in `windows` of tokens; None: all.

        A text is audited only where all pairs of the stage are no more than `affordable_pairs`.
        """
        rule = plan.schema.shortlist
        if rule is None or rule.top_k >= len(plan.nodes):
            return None
        index = self._index_of(plan.schema)[plan.schema.tree.nodes[plan.nodes[0]].parent]
        texts = np.stack([vector_of(self._vectors, window) for window in windows])
        is_affordable = len(windows) * len(plan.hypotheses) <= affordable_pairs
        return Shortlist(index.nearest(texts, rule.top_k), is_affordable and self.is_audited(plan.request.id))

    def is_audited(self, identity: str) -> bool:
        """Whether all labels are scored for a message: by it alone, so that scored again it is treated alike."""
        return self._audit_every > 0 and zlib.crc32(identity.encode("utf-8", "surrogatepass")) % self._audit_every == 0

    def _index_of(self, schema: LabelSchema) -> Mapping[int | None, LabelIndex]:
        with self._lock:
            kept = self._indexes.get(schema.digest)
            if kept is not None:
                self._indexes.move_to_end(schema.digest)
                return kept
        made = self._indexes_of(schema)
        with self._lock:
            if schema.digest not in self._indexes:  # another thread may have made it meanwhile
                self._indexes[schema.digest] = made
                self._labels += _labels_in(made)
            while self._labels > self._most_labels and len(self._indexes) > 1:
                _, oldest = self._indexes.popitem(last=False)
                self._labels -= _labels_in(oldest)
        return made

    def _indexes_of(self, schema: LabelSchema) -> dict[int | None, LabelIndex]:
        """One index per stage, by the parent of its labels."""
        stages: dict[int | None, list[int]] = {}
        for place, node in enumerate(schema.tree.nodes):
            stages.setdefault(node.parent, []).append(place)
        return {parent: self._index(schema, tuple(places)) for parent, places in stages.items()}

    def _index(self, schema: LabelSchema, places: tuple[int, ...]) -> LabelIndex:
        words = [words_of(schema.tree.nodes[place].label) for place in places]
        return index_of(self._vectors, places, [self._encode(text) for text in words])


def index_of(vectors: TokenVectors, nodes: tuple[int, ...], token_ids: Sequence[Int32Array]) -> LabelIndex:
    """The labels of one stage, given the tokens of each one's words, at least one label."""
    each = np.stack([vector_of(vectors, tokens) for tokens in token_ids])
    # What all labels of a stage share tells none of them from another.
    return LabelIndex(nodes, _of_length_one(each - each.mean(axis=0)))


def words_of(label: Label) -> str:
    """What stands for `label` where it is compared with texts: the words that the model is given of it."""
    return label.hypothesis or label.description or label.name


def vector_of(vectors: TokenVectors, token_ids: Int32Array) -> Float32Array:
    """A text as a vector of length 1; of length 0 where none of its tokens says anything."""
    rows = vectors.values[token_ids].astype(np.float32) * vectors.scales[token_ids, np.newaxis]
    return _of_length_one(rows.sum(axis=0))


def _of_length_one(vectors: Float32Array) -> Float32Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0), np.float32)


def _labels_in(indexes: Mapping[int | None, LabelIndex]) -> int:
    return sum(len(index.nodes) for index in indexes.values())
