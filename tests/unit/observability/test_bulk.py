"""The bulk histogram says what the client's own would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from worker.observability.bulk import BulkHistogram

BOUNDS = (0.25, 1.0, 5.0)
# Halves add up without rounding, whatever the order; the bounds themselves are among them.
halves = st.integers(0, 20).map(lambda number: number / 4)


@given(st.lists(st.lists(halves, max_size=6), max_size=4))
def test_it_counts_and_sums_as_one_that_observes_one_by_one(chunks: list[list[float]]) -> None:
    bulk_registry, plain_registry = CollectorRegistry(), CollectorRegistry()
    bulk = BulkHistogram("wait_seconds", "How long.", BOUNDS, bulk_registry)
    plain = Histogram("wait_seconds", "How long.", registry=plain_registry, buckets=BOUNDS)
    for chunk in chunks:
        bulk.observe_all(chunk)
        for value in chunk:
            plain.observe(value)
    expected = [line for line in generate_latest(plain_registry).splitlines() if b"_created" not in line]
    assert expected == generate_latest(bulk_registry).splitlines()
