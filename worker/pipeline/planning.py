"""Step 4: which (text, hypothesis) pairs a message needs."""

from dataclasses import dataclass

from worker.errors import ErrorCode, MessageError, Stage
from worker.labels.schema import Label, LabelSchema, fill_template
from worker.types import Request


@dataclass(frozen=True, slots=True)
class LabelPairs:
    """The hypotheses of one label, as indices into the plan's hypotheses."""

    positive: tuple[int, ...]
    """One per template; a single one where the label brings a whole hypothesis."""
    negative: int | None
    """The contrasting hypothesis, where the label has one."""


@dataclass(frozen=True, slots=True)
class PairPlan:
    """The pairs of one message under one version of one label schema.

    The premise of every pair is the request's text; pair `i` has hypothesis `hypotheses[i]`.
    """

    request: Request
    schema: LabelSchema
    hypotheses: tuple[str, ...]
    """Each different hypothesis once: labels that share one share its pair."""
    labels: tuple[LabelPairs, ...]
    """In the order of the schema's labels."""


def plan_pairs(request: Request, schema: LabelSchema, max_pairs: int) -> PairPlan:
    """Every pair needed to decide about `request` under `schema`.

    Raises:
        MessageError: the schema needs more than `max_pairs` pairs.
    """
    index: dict[str, int] = {}
    labels = []
    for label in schema.labels:
        positive = tuple(index.setdefault(h, len(index)) for h in _hypotheses(label, schema.hypothesis_templates))
        negative = None if label.negative is None else index.setdefault(label.negative, len(index))
        labels.append(LabelPairs(positive, negative))
    if len(index) > max_pairs:
        reason = f"needs {len(index)} pairs, the limit `limits.pairs` is {max_pairs}"
        raise MessageError(ErrorCode.TOO_MANY_PAIRS, Stage.PLAN, reason)
    return PairPlan(request, schema, tuple(index), tuple(labels))


def _hypotheses(label: Label, templates: tuple[str, ...]) -> tuple[str, ...]:
    if label.hypothesis is not None:
        return (label.hypothesis,)
    return tuple(fill_template(template, label.description or label.name) for template in templates)
