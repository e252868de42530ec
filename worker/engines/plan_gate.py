"""The gate for compiled plans: every profile agrees with float32, in any order and beside any neighbour."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.engines.artifact import ModelFolder
from worker.engines.build import BATCH_BOUNDS, GateReport, bound_of, judge, verify_singles
from worker.engines.golden import Golden, edge_pairs, encode_pairs, join_batches
from worker.engines.layout import filler_batch
from worker.engines.profiles import Profile
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.trt import TensorRtEngine
from worker.types import Batch, EngineInfo, Float32Array, JsonValue, PairScores


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


@dataclass(frozen=True, slots=True)
class Sample:
    """Pairs as batches of their own, and what the float32 model says of them: float32 [pairs, classes]."""

    singles: tuple[Batch, ...] = ()
    logits: Float32Array = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def take(self, rows: Sequence[int]) -> "Sample":
        """The pairs in `rows`, in that order."""
        return Sample(tuple(self.singles[row] for row in rows), self.logits[list(rows)])


def measure_edges(engine: TensorRtEngine, folder: ModelFolder) -> Sample:
    """Pairs just as long as the profiles of `engine` take, with float32 logits from the CPU. Blocks for seconds.

    Golden pairs are as long as texts are: between two of them a profile's last places would go unseen.

    Raises:
        EngineError: torch is not installed, or cannot load the model.
    """
    longest = engine.info.max_pair_tokens
    lengths = [longest] if engine.layout == "packed" else [profile.tokens for profile in engine.profiles]
    singles = edge_pairs(folder, lengths)
    plain = PyTorchEngine(folder, PyTorchOptions(device="cpu"))
    try:
        return Sample(singles, np.concatenate([plain.score(single).logits for single in singles]))
    finally:
        plain.close()


def verify_plan(engine: TensorRtEngine, folder: ModelFolder, golden: Golden, edges: Sample | None = None) -> GateReport:
    """The worst of what all profiles give, and of the engine as a whole; the reason names the profile."""
    sample = Sample(encode_pairs(folder, golden.pairs), golden.logits)
    if edges is not None and edges.singles:
        sample = Sample(sample.singles + edges.singles, np.concatenate([sample.logits, edges.logits]))
    # Twice, so that what profiles leave behind for each other shows.
    profiles = [*range(len(engine.profiles))] * 2
    reports = [_verify_profile(InProfile(engine, index), sample) for index in profiles]
    try:
        whole = verify_singles(engine, sample.singles, sample.logits, has_8bit_weights=_is_8bit(engine))
    except (ValueError, RuntimeError) as error:
        whole = _unmeasured(len(sample.singles), str(error))
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


def _verify_profile(engine: InProfile, everything: Sample) -> GateReport:
    kind = engine.engine.profiles[engine.profile]
    name = f"profile of {kind.pairs} pairs and {kind.tokens} tokens"
    sizes = [single.token_ids.size for single in everything.singles]
    sample = everything.take([row for row, size in enumerate(sizes) if size <= engine.info.max_pair_tokens])
    if not sample.singles:
        return GateReport(0, 0.0, 0.0, 0, 0.0, passed=False, reason=f"{name}: no golden pair is so short")
    try:
        report = worst_of(
            [
                verify_singles(engine, sample.singles, sample.logits, has_8bit_weights=_is_8bit(engine.engine)),
                *_in_large_batches(engine, sample),
            ]
        )
    except (ValueError, RuntimeError) as error:
        return _unmeasured(len(sample.singles), f"{name}: {error}")
    return dataclasses.replace(
        report, pairs=len(sample.singles), reason=f"{name}: {report.reason}" if report.reason else ""
    )


def _unmeasured(pairs: int, reason: str) -> GateReport:
    """Of logits that are no numbers, or that there are none of."""
    return GateReport(pairs, np.inf, np.inf, 0, np.inf, passed=False, reason=reason)


def _in_large_batches(engine: InProfile, sample: Sample) -> Iterator[GateReport]:
    """What is to be said of all pairs at once, and of batches that leave no room: for these kernels were chosen."""
    stamp, kind = engine.info.stamp, engine.engine.profiles[engine.profile]
    sizes = [single.token_ids.size for single in sample.singles]
    together = engine.score(join_batches(sample.singles)).logits
    whole = [*range(len(sizes))]
    for rows in (whole, *fullest(sizes, kind, engine.engine.layout)):
        forward = together if rows is whole else _filled(engine, sample, rows)
        backward = _filled(engine, sample, rows[::-1])
        apart = float(np.abs(forward - together[rows]).max())
        report = judge(sample.logits[rows], forward, apart, stamp.precision, has_8bit_weights=_is_8bit(engine.engine))
        reasons = [report.reason] if report.reason else []
        moved = float(np.abs(forward - backward[::-1]).max())
        # Not `moved > bound`: a NaN must fail.
        if not moved <= bound_of(BATCH_BOUNDS, stamp.precision, sample.logits[rows]):
            reasons.append(f"logits differ with the order of rows by {moved:.2g}")
        yield dataclasses.replace(
            report,
            batch_dependence=float(np.max([apart, moved])),
            passed=not reasons,
            reason=f"in a batch of {len(rows)}, {'; '.join(reasons)}" if reasons else "",
        )


def fullest(sizes: Sequence[int], profile: Profile, layout: str) -> list[list[int]]:
    """Which pairs of these sizes, again and again, fill the profile up: the longest first, each list a batch.

    Packed, there are two ways to be full: of tokens, and of pairs.
    """
    order = sorted(range(len(sizes)), key=lambda row: -sizes[row])
    if layout != "packed":
        return [[order[place % len(order)] for place in range(profile.pairs)]]
    rows: list[int] = []
    left, before = profile.tokens, -1
    while before < len(rows) < profile.pairs:
        before = len(rows)
        for row in order:
            if sizes[row] <= left and len(rows) < profile.pairs:
                rows.append(row)
                left -= sizes[row]
    short = [row for row in order if sizes[row] * profile.pairs <= profile.tokens]
    many = [short[place % len(short)] for place in range(profile.pairs)] if short else []
    return [each for each in (rows, many) if each]


def _filled(engine: InProfile, sample: Sample, rows: Sequence[int]) -> Float32Array:
    """Logits of the pairs in `rows`, scored at once; what room they leave among packed tokens is filled up."""
    kind = engine.engine.profiles[engine.profile]
    batches = [sample.singles[row] for row in rows]
    left = kind.tokens - sum(batch.token_ids.size for batch in batches)
    if engine.engine.layout == "packed" and len(rows) < kind.pairs and 0 < left <= engine.info.max_pair_tokens:
        batches.append(filler_batch(1, left))
    return engine.score(join_batches(batches)).logits[: len(rows)]


def _is_8bit(engine: TensorRtEngine) -> bool:
    return engine.info.stamp.precision == "float8"
