"""No topic starves another: what anybody waits is bounded by what the others' shares are, whatever they bring."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import record
from worker.backlog import Backlog
from worker.clock import ManualClock
from worker.types import Record

TOPICS = ("a", "b", "c")
costs = st.fixed_dictionaries({topic: st.integers(1, 5000) for topic in TOPICS})
arrivals = st.lists(
    st.tuples(st.lists(st.sampled_from(TOPICS), max_size=30), st.integers(0, 40)), min_size=1, max_size=30
)


def filled(cost: dict[str, int]) -> Backlog:
    backlog = Backlog(ManualClock())
    for topic, tokens in cost.items():
        backlog.note_cost(topic, tokens)
    return backlog


@given(arrivals)
def test_every_record_is_taken_once_and_in_the_order_of_its_topic(steps: list[tuple[list[str], int]]) -> None:
    backlog, offsets = Backlog(ManualClock()), Counter[str]()
    added, taken = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)

    def take(count: int) -> None:
        for each in backlog.take(count):
            taken[each.topic].append(each.offset)

    for topics, count in steps:
        arrived = []
        for topic in topics:
            arrived.append(record(topic, offset=offsets[topic]))
            added[topic].append(offsets[topic])
            offsets[topic] += 1
        backlog.add(arrived)
        take(count)
        assert sum(map(len, added.values())) - sum(map(len, taken.values())) == len(backlog)
    take(10_000)
    assert added == taken


@given(costs, arrivals, st.integers(1, 20))
def test_a_record_waits_for_no_more_than_its_own_and_one_more_share_of_each_other_topic(
    cost: dict[str, int], steps: list[tuple[list[str], int]], trickle: int
) -> None:
    """While n records of one topic wait, another one is given no more than these cost, and one record."""
    backlog = filled(cost)
    for topics, count in steps:
        backlog.add([record(topic) for topic in topics if topic != "c"])
        backlog.take(count)
    backlog.add([record(topic) for topic in ("a", "b") for _ in range(2000)])
    backlog.add([record("c", offset=offset) for offset in range(trickle)])
    order: list[Record] = []
    while trickle > sum(each.topic == "c" for each in order) and len(backlog):
        order += backlog.take(1)
    spent = Counter[str]()
    for each in order:
        spent[each.topic] += cost[each.topic]
    for other in ("a", "b"):
        enough = 2000 * cost[other]
        assert min(spent[other], enough) <= trickle * cost["c"] + cost[other]


@given(costs, arrivals, st.integers(1, 20), st.integers(0, 20))
def test_what_is_put_back_is_taken_as_if_it_had_never_been_taken(
    cost: dict[str, int], steps: list[tuple[list[str], int]], count: int, kept: int
) -> None:
    """Even where what was kept of it turned out to cost far more."""
    one, other = filled(cost), filled(cost)
    for place, (topics, taken) in enumerate(steps):
        for backlog in (one, other):
            backlog.add([record(topic, offset=place) for topic in topics])
            backlog.take(taken)
    first = one.take(count)
    kept = min(kept, len(first))
    other.take(kept)
    one.put_back(first[kept:])
    assert len(other) == len(one)
    for backlog in (one, other):
        for each in first[:kept]:
            backlog.note_cost(each.topic, 1_000_000)
    assert other.take(10_000) == one.take(10_000)
