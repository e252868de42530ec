"""The pace of batches against simulated engines: the latency target holds where it can, and batches are as full."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.pipeline.batching import BatchLimit
from worker.pipeline.pacing import (
    BATCH_SHARE,
    DEPTHS_WAITED,
    LEAST_WAITS_BATCHES,
    MOST_WAITS_BATCHES,
    EngineCost,
    Pace,
    fitted_cost,
)

BUDGET = 8192
costs = st.builds(EngineCost, st.floats(0.0, 0.05), st.floats(1e-7, 1e-4))
targets = st.floats(0.02, 2.0)


def run_engine(pace: Pace, cost: EngineCost, seed: int, batches: int = 64) -> None:
    """Batches of any size up to the limit; one in eight is disturbed by something else on the machine."""
    draw = random.Random(seed)
    for _ in range(batches):
        tokens = draw.randint(1, pace.limit(BUDGET * 16).tokens)
        disturbance = draw.uniform(2, 20) if draw.randint(1, 8) == 1 else 1
        pace.observe(tokens, cost.seconds(tokens) * draw.uniform(0.98, 1.02) * disturbance)


@given(costs, targets, st.integers(0, 2**32))
def test_a_batch_takes_its_share_of_the_target_where_that_is_worth_while(
    cost: EngineCost, target_seconds: float, seed: int
) -> None:
    pace = Pace(BUDGET, target_seconds)
    run_engine(pace, cost, seed)
    taken = cost.seconds(pace.limit(0).tokens)
    allowed = max(BATCH_SHARE * target_seconds, 2 * cost.fixed_seconds, cost.seconds(1))
    assert taken <= 1.5 * allowed


@given(costs, targets, st.integers(0, 2**32))
def test_a_batch_is_as_full_as_the_target_lets_it_be(cost: EngineCost, target_seconds: float, seed: int) -> None:
    pace = Pace(BUDGET, target_seconds)
    run_engine(pace, cost, seed)
    best = min(BUDGET, cost.tokens_within(BATCH_SHARE * target_seconds))
    assert pace.limit(0).tokens >= 0.5 * best


@given(costs, st.integers(0, 2**32))
def test_the_cost_of_an_engine_is_found_though_some_batches_were_disturbed(cost: EngineCost, seed: int) -> None:
    draw = random.Random(seed)
    tokens = [draw.randint(100, BUDGET) for _ in range(64)]
    seconds = [cost.seconds(each) * (10 if draw.randint(1, 8) == 1 else 1) for each in tokens]
    found = fitted_cost(tokens, seconds)
    assert found is not None
    for each in (1000, 4000, 8000):
        assert cost.seconds(each) == pytest.approx(found.seconds(each), rel=0.25)


@given(st.floats(1e-6, 1e-4), st.integers(1, BUDGET))
def test_batches_of_one_size_are_taken_to_cost_by_the_token(seconds_per_token: float, tokens: int) -> None:
    found = fitted_cost([tokens] * 20, [seconds_per_token * tokens] * 20)
    assert found is not None
    assert pytest.approx(seconds_per_token) == found.seconds_per_token
    assert 0.0 == found.fixed_seconds


def test_the_engines_own_budget_holds_until_enough_was_observed() -> None:
    pace = Pace(BUDGET, 0.2)
    assert BatchLimit(BUDGET) == pace.limit(0)
    for _ in range(7):
        pace.observe(1000, 10.0)
    assert BUDGET == pace.limit(0).tokens
    pace.observe(1000, 10.0)
    assert 5 == pace.limit(0).tokens


def test_nothing_is_learned_from_an_engine_that_takes_no_time() -> None:
    pace = Pace(BUDGET, 0.2)
    for _ in range(64):
        pace.observe(1000, 0.0)
    assert pace.cost is None
    assert BUDGET == pace.limit(0).tokens


@given(costs, targets, st.integers(0, 10**6), st.integers(0, 2**32))
def test_a_pair_may_be_passed_over_for_as_long_as_the_queue_is_deep_within_bounds(
    cost: EngineCost, target_seconds: float, queued: int, seed: int
) -> None:
    pace = Pace(BUDGET, target_seconds)
    run_engine(pace, cost, seed)
    limit = pace.limit(queued)
    depth = queued / limit.tokens
    assert min(MOST_WAITS_BATCHES, max(LEAST_WAITS_BATCHES, int(DEPTHS_WAITED * depth))) <= limit.waits_batches
    assert limit.waits_batches <= MOST_WAITS_BATCHES


@given(costs, targets, st.integers(0, 2**32))
def test_a_queue_that_takes_longer_than_the_target_is_worked_off_in_full_batches(
    cost: EngineCost, target_seconds: float, seed: int
) -> None:
    pace = Pace(BUDGET, target_seconds)
    run_engine(pace, cost, seed)
    takes_for_ever = int((cost.seconds(BUDGET) / BATCH_SHARE) / cost.seconds_per_token) * 2
    assert BUDGET == pace.limit(takes_for_ever).tokens
    # One that the engine is through with in time changes nothing.
    in_time = int(0.5 * target_seconds / cost.seconds_per_token)
    assert pace.limit(0).tokens == pace.limit(in_time).tokens
