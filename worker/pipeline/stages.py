"""What follows when a stage of a message is scored: steps 4 and 5 once more, for what lies below the best label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.pipeline.decision import next_stage
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import PairPlan
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Premise, TokenizedPairs


@dataclass(frozen=True, slots=True)
class NextStage:
    """More pairs of a message that is in flight."""

    plan: PairPlan
    pairs: TokenizedPairs


FollowUp = Callable[[Sequence[ScoredStage], Premise], NextStage | None]
"""The stage after those that are scored, None where they decide; raises MessageError where it cannot be scored."""


def follow_up(tokenizer: PairTokenizer, model: ModelView) -> FollowUp:
    """How a message goes on under this model."""

    def after(stages: Sequence[ScoredStage], premise: Premise) -> NextStage | None:
        plan = next_stage(stages, model)
        return None if plan is None else NextStage(plan, tokenizer.tokenize_next(plan, premise))

    return after


def nothing_follows(_stages: Sequence[ScoredStage], _premise: Premise) -> None:
    """One stage is all there is."""
