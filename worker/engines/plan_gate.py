"""The gate for compiled plans: every profile agrees with float32, in any order and beside any neighbour."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from worker.engines.artifact import ModelFolder
from worker.engines.base import Engine
from worker.engines.build import BATCH_BOUNDS, GateReport, verify
from worker.engines.golden import Golden, encode_pairs, join_batches
from worker.engines.trt import TensorRtEngine
from worker.types import Batch, EngineInfo, JsonValue, PairScores


@dataclass(frozen=True, slots=True)
class InProfile:
    """An engine that runs every batch in one profile."""

    engine: TensorRtEngine
    profile: int

    @property
    def info(self) -> EngineInfo:
        """That of the engine, with the profile's bounds."""
        kind = self.engine.profiles[self.profile]
        is_packed = self.engine.layout == "packed"
        return dataclasses.replace(
            self.engine.info,
            max_pair_tokens=min(kind.tokens, self.engine.info.max_pair_tokens),
            token_budget=kind.tokens if is_packed else kind.tokens * kind.pairs,
        )

    def warm_up(self) -> None:
        """Nothing: the engine warms all profiles up."""

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks."""
        return PairScores(self.engine.score_in(self.profile, batch))

    def close(self) -> None:
        """Nothing: the engine is closed by whoever opened it."""


def verify_plan(engine: TensorRtEngine, folder: ModelFolder, golden: Golden) -> GateReport:
    """The worst of what all profiles give, and of the engine as a whole; the reason names the profile."""
    reports = [_verify_profile(InProfile(engine, index), folder, golden) for index in range(len(engine.profiles))]
    # Twice, so that what profiles leave behind for each other shows.
    reports += [_verify_profile(InProfile(engine, index), folder, golden) for index in range(len(engine.profiles))]
    try:
        whole = verify(engine, folder, golden, has_8bit_weights=_is_8bit(engine))
    except (ValueError, RuntimeError) as error:
        whole = _unmeasured(len(golden.pairs), str(error))
    return worst_of([*reports, whole])


def as_notes(report: GateReport) -> dict[str, JsonValue]:
    """A report for a manifest."""
    return {"gate": dict(dataclasses.asdict(report).items())}


def worst_of(reports: list[GateReport]) -> GateReport:
    """One report that is as bad as the worst in every number."""
    reasons = list(dict.fromkeys(report.reason for report in reports if report.reason))
    return GateReport(
        pairs=max(report.pairs for report in reports),
        largest_logit_error=float(np.max([report.largest_logit_error for report in reports])),
        mean_logit_error=float(np.max([report.mean_logit_error for report in reports])),
        label_flips=max(report.label_flips for report in reports),
        batch_dependence=float(np.max([report.batch_dependence for report in reports])),
        passed=all(report.passed for report in reports),
        reason="; ".join(reasons),
    )


def _verify_profile(engine: InProfile, folder: ModelFolder, golden: Golden) -> GateReport:
    kind = engine.engine.profiles[engine.profile]
    name = f"profile of {kind.pairs} pairs and {kind.tokens} tokens"
    singles = encode_pairs(folder, golden.pairs)
    fitting = [index for index, single in enumerate(singles) if single.token_ids.size <= engine.info.max_pair_tokens]
    if not fitting:
        return GateReport(0, 0.0, 0.0, 0, 0.0, passed=False, reason=f"{name}: no golden pair is so short")
    part = Golden(tuple(golden.pairs[index] for index in fitting), golden.logits[fitting])
    try:
        report = verify(engine, folder, part, has_8bit_weights=_is_8bit(engine.engine))
        moved = _order_dependence(engine, [singles[index] for index in fitting])
    except (ValueError, RuntimeError) as error:
        return _unmeasured(len(fitting), f"{name}: {error}")
    reasons = [report.reason] if report.reason else []
    # Not `moved > bound`: a NaN must fail.
    if not moved <= BATCH_BOUNDS[engine.info.stamp.precision]:
        reasons.append(f"logits differ with the order of rows by {moved:.2g}")
    return dataclasses.replace(
        report,
        batch_dependence=max(report.batch_dependence, moved),
        passed=not reasons,
        reason=f"{name}: {'; '.join(reasons)}" if reasons else "",
    )


def _unmeasured(pairs: int, reason: str) -> GateReport:
    """Of logits that are no numbers, or that there are none of."""
    return GateReport(pairs, np.inf, np.inf, 0, np.inf, passed=False, reason=reason)


def _order_dependence(engine: Engine, singles: list[Batch]) -> float:
    """Largest change of a logit when all rows are scored together the other way round."""
    forward = engine.score(join_batches(singles)).logits
    backward = engine.score(join_batches(singles[::-1])).logits
    return float(np.abs(forward - backward[::-1]).max())


def _is_8bit(engine: TensorRtEngine) -> bool:
    return engine.info.stamp.precision == "float8"
