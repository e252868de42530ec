"""What has to be true of any plan: more work never asks for less, and what is planned suffices."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from pytest import approx  # noqa: PT013  read often

from worker.capacity import (
    Machine,
    Workload,
    busiest_share,
    make_plan,
    pairs_per_message,
    partitions_for,
    tokens_per_second,
    workers_for,
)

WORKLOADS = st.builds(
    Workload,
    messages_per_second=st.floats(0.01, 20_000),
    labels=st.integers(1, 1000),
    tokens=st.integers(1, 20_000),
    hypothesis_tokens=st.integers(1, 60),
    hypotheses_per_label=st.integers(1, 4),
    shortlist=st.none() | st.integers(1, 300),
    audit_every=st.integers(0, 1000),
    windows=st.booleans(),
    repeats=st.floats(0.0, 0.99),
    peak_factor=st.floats(1.0, 20.0),
    with_event=st.booleans(),
)
MACHINES = st.builds(Machine, tokens_per_second=st.floats(1000.0, 5e6), utilisation=st.floats(0.05, 1.0))
LOADS = st.floats(0.0, 3000.0)


@given(WORKLOADS)
def test_twice_the_messages_are_twice_the_tokens(work: Workload) -> None:
    doubled = replace(work, messages_per_second=2 * work.messages_per_second)
    assert approx(2 * tokens_per_second(work)) == tokens_per_second(doubled)


@given(WORKLOADS, st.integers(1, 500), st.integers(1, 500))
def test_more_labels_more_text_and_fewer_repeats_never_cost_less(work: Workload, labels: int, tokens: int) -> None:
    least = tokens_per_second(work) * (1 - 1e-9)
    assert least <= tokens_per_second(replace(work, labels=work.labels + labels))
    assert least <= tokens_per_second(replace(work, tokens=work.tokens + tokens))
    assert least <= tokens_per_second(replace(work, repeats=0.0))


@given(WORKLOADS)
def test_a_shortlist_never_costs_more_than_all_labels(work: Workload) -> None:
    assert pairs_per_message(work) <= pairs_per_message(replace(work, shortlist=None)) * (1 + 1e-9)


@given(LOADS, st.integers(1, 3000))
def test_the_workers_suffice_and_one_fewer_would_not(load: float, partitions: int) -> None:
    workers = workers_for(load, partitions)
    if workers is None:
        assert load > partitions
        return
    assert busiest_share(partitions, workers) * load <= 1
    assert workers == 1 or busiest_share(partitions, workers - 1) * load > 1 or workers - 1 < load


@given(LOADS)
def test_new_partitions_are_enough_for_twice_the_load(load: float) -> None:
    workers = workers_for(2 * load, partitions_for(load))
    assert workers is not None


@given(WORKLOADS, MACHINES)
def test_a_faster_machine_never_needs_more_workers(work: Workload, machine: Machine) -> None:
    partitions = make_plan(work, machine).partitions
    slow = make_plan(work, machine, partitions).workers
    fast = make_plan(work, replace(machine, tokens_per_second=3 * machine.tokens_per_second), partitions).workers
    assert slow is not None
    assert fast is not None
    assert fast <= slow


@given(WORKLOADS, MACHINES)
def test_no_plan_is_of_less_than_one(work: Workload, machine: Machine) -> None:
    found = make_plan(work, machine)
    assert found.workers is not None
    assert 1 <= found.workers_on_average <= found.workers <= found.partitions
    assert 1 <= found.lag_per_replica
    assert found.partitions_needed <= found.partitions
