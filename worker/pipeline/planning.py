"""Step 4: which (text, hypothesis) pairs a message needs, and of a hierarchy which it needs next."""

from dataclasses import dataclass, replace

from worker.errors import ErrorCode, MessageError, Stage
from worker.labels.schema import LabelSchema
from worker.labels.tree import LabelPairs, TreeStage
from worker.types import Request, Shortlist

__all__ = ["LabelPairs", "PairPlan", "check_cost", "plan_below", "plan_pairs", "shortlisted", "without_audit"]


@dataclass(frozen=True, slots=True)
class PairPlan:
    """The pairs of one stage of one message, under one version of one label schema.

    The premise of every pair is the request's text, or a window of it; each window has a pair with each hypothesis.
    """

    request: Request
    schema: LabelSchema
    nodes: tuple[int, ...]
    """The labels of this stage, as indices into the schema's tree."""
    hypotheses: tuple[str, ...]
    """Each different hypothesis once: labels of a stage that share one share its pair."""
    labels: tuple[LabelPairs, ...]
    """In the order of `nodes`."""
    max_pairs: int
    """Most pairs that the message may cost, all windows and stages together."""
    audited: tuple[int, ...] | None = None
    """The shortlist, where labels beside it are scored to see what it misses; None: all may be decided for."""


def plan_pairs(request: Request, schema: LabelSchema, max_pairs: int) -> PairPlan:
    """The first stage of deciding about `request` under `schema`: all labels, or the roots of a hierarchy.

    Raises:
        MessageError: the message may cost more than `max_pairs` pairs, even if its text is short.
    """
    check_cost(schema, 1, max_pairs)
    return _planned(request, schema, schema.tree.stage(schema.tree.first), max_pairs)


def plan_below(plan: PairPlan, node: int) -> PairPlan | None:
    """The stage after `plan` where `node` was the best of its labels; None where there is nothing below it."""
    tree = plan.schema.tree
    children = tree.after(node)
    return _planned(plan.request, plan.schema, tree.stage(children), plan.max_pairs) if children else None


def shortlisted(plan: PairPlan, shortlist: Shortlist | None) -> PairPlan:
    """What of `plan` is scored under `shortlist`; with None all of it."""
    if shortlist is None:
        return plan
    if shortlist.is_audited:
        return replace(plan, audited=shortlist.nodes)
    return _part_of(plan, shortlist.nodes)


def without_audit(plan: PairPlan) -> PairPlan:
    """What would have been scored of `plan` had it not been audited."""
    return plan if plan.audited is None else _part_of(plan, plan.audited)


def check_cost(schema: LabelSchema, windows: int, max_pairs: int) -> None:
    """Nothing, where a text in so many windows cannot cost more than `max_pairs` pairs, whatever the scores.

    Raises:
        MessageError: it may.
    """
    pairs = windows * schema.tree.most_pairs
    if pairs > max_pairs:
        of_windows = f" for {windows} windows" if windows > 1 else ""
        reason = f"needs {pairs} pairs{of_windows}, the limit `limits.pairs` is {max_pairs}"
        raise MessageError(ErrorCode.TOO_MANY_PAIRS, Stage.PLAN, reason)


def _planned(request: Request, schema: LabelSchema, stage: TreeStage, max_pairs: int) -> PairPlan:
    return PairPlan(request, schema, stage.nodes, stage.hypotheses, stage.labels, max_pairs)


def _part_of(plan: PairPlan, nodes: tuple[int, ...]) -> PairPlan:
    return _planned(plan.request, plan.schema, plan.schema.tree.part(nodes), plan.max_pairs)
