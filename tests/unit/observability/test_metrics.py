"""Metrics say what to do, and belong to one worker."""

from itertools import pairwise

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from worker.observability.drift import RECENT, REFERENCE
from worker.observability.metrics import ENGINE_FAILURES, TRANSACTIONS, UNKNOWN, Metrics
from worker.scoring import BROKEN, FAILED, OUT_OF_MEMORY
from worker.types import ModelStamp

EXPECTED = {
    "worker_records_consumed_total": {"topic"},
    "worker_predictions_delivered_total": {"topic"},
    "worker_dead_letters_total": {"topic", "reason"},
    "worker_abstentions_total": {"topic"},
    "worker_end_to_end_latency_seconds": set(),
    "worker_stage_duration_seconds": {"stage"},
    "worker_records_late_total": {"topic"},
    "worker_batch_pairs": set(),
    "worker_batch_padding_ratio": set(),
    "worker_pairs_scored_total": set(),
    "worker_tokens_scored_total": set(),
    "worker_engine_failures_total": {"kind"},
    "worker_batch_tokens_allowed": set(),
    "worker_queue_pairs": set(),
    "worker_queue_tokens": set(),
    "worker_drain_seconds": set(),
    "worker_label_drift_psi": {"name", "version"},
    "worker_records_in_flight": set(),
    "worker_partitions_paused": set(),
    "worker_partitions_assigned": set(),
    "worker_transactions_total": {"outcome"},
    "worker_transaction_duration_seconds": set(),
    "worker_transaction_records": set(),
    "worker_label_schema_info": {"name", "version"},
    "worker_label_schema_refusals_total": {"name"},
    "worker_consumer_lag_records": {"topic", "partition"},
    "worker_pairs_cached_total": set(),
    "worker_score_cache_bytes": set(),
    "worker_shortlist_audits_total": {"outcome"},
    "worker_engine_info": {"engine", "precision", "model", "model_digest"},
    "worker_info": {"version", "group"},
    "worker_ready": set(),
}


def _ours(metrics: Metrics) -> list[Metric]:
    families = text_string_to_metric_families(metrics.render().decode())
    return [family for family in families if family.name.startswith("worker_")]


def _samples(metrics: Metrics, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value) for family in _ours(metrics) for sample in family.samples if sample.name == name
    ]


def test_every_metric_is_there_under_its_name() -> None:
    names = {family.name + ("_total" if family.type == "counter" else "") for family in _ours(Metrics())}

    assert set(EXPECTED) == names


def test_labels_are_the_bounded_sets_that_were_agreed() -> None:
    assert EXPECTED == {metric.name: set(metric.labels) for metric in Metrics().definitions}


def test_a_metric_has_the_labels_and_the_type_that_its_definition_says() -> None:
    metrics = Metrics()
    attributes = [value for value in vars(metrics).values() if hasattr(value, "describe")]
    families = {collector.describe()[0].name: collector for collector in attributes}

    for metric in metrics.definitions:
        collector = families[metric.name.removesuffix("_total")]
        assert metric.kind == collector.describe()[0].type
        if hasattr(collector, "_labelnames"):
            assert metric.labels == collector._labelnames


def test_every_help_text_says_what_to_do() -> None:
    for family in _ours(Metrics()):
        assert ":" in family.documentation, family.name
        assert family.documentation.endswith("."), family.name


def test_two_workers_in_one_process_share_no_numbers() -> None:
    one, other = Metrics(), Metrics()

    one.records_consumed.labels(topic="in").inc(3)

    assert [({"topic": "in"}, 3.0)] == _samples(one, "worker_records_consumed_total")
    assert [] == _samples(other, "worker_records_consumed_total")


def test_only_the_version_in_force_of_a_schema_is_shown() -> None:
    metrics = Metrics()

    metrics.label_schema_in_force("intent", 1)
    metrics.label_schema_in_force("topics", 4)
    metrics.label_schema_in_force("intent", 2)
    metrics.label_schema_in_force("topics", None)

    assert [({"name": "intent", "version": "2"}, 1.0)] == _samples(metrics, "worker_label_schema_info")


def test_only_the_engine_in_use_is_shown() -> None:
    metrics = Metrics()

    for precision in ("float32", "bfloat16"):
        metrics.engine_in_use(ModelStamp("mini", "sha256:1", "openvino", precision))

    ((labels, value),) = _samples(metrics, "worker_engine_info")
    assert ("bfloat16", 1.0) == (labels["precision"], value)


def test_a_worker_tells_its_version_and_its_consumer_group() -> None:
    metrics = Metrics()

    metrics.identify("1.2.0", "support")

    assert [({"version": "1.2.0", "group": "support"}, 1.0)] == _samples(metrics, "worker_info")


def test_readiness_is_as_it_is_when_the_metrics_are_read() -> None:
    metrics, reasons = Metrics(), ["engine: the model is being loaded"]
    assert [({}, 0.0)] == _samples(metrics, "worker_ready"), "nobody has said that it is ready"

    metrics.ask_readiness(lambda: not reasons)
    assert [({}, 0.0)] == _samples(metrics, "worker_ready")
    reasons.clear()
    assert [({}, 1.0)] == _samples(metrics, "worker_ready")


def test_a_latency_of_minutes_is_told_to_within_a_factor_of_two_up_to_an_hour() -> None:
    metrics = Metrics()
    (bounds,) = [
        [float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels]
        for family in _ours(metrics)
        if family.name == "worker_end_to_end_latency_seconds"
    ]
    minutes = [bound for bound in bounds if 30 <= bound <= 3600]

    assert (30, 3600) == (minutes[0], minutes[-1])
    assert max(high / low for low, high in pairwise(minutes)) <= 2
    assert 900 in minutes, "where WorkerDrainsSlowly fires"


def test_what_is_counted_of_a_topic_is_there_at_zero_once_its_lag_is_known() -> None:
    metrics = Metrics()
    metrics.lag_seen("in", 0, 7)
    rendered = metrics.render().decode()
    for name in ("records_consumed", "predictions_delivered", "abstentions"):
        assert f'worker_{name}_total{{topic="in"}} 0.0\n' in rendered


def test_the_lag_of_a_released_partition_is_not_shown_any_more() -> None:
    metrics = Metrics()
    metrics.lag_seen("in", 0, 7)
    metrics.lag_seen("in", 1, 9)

    metrics.partition_released("in", 0)
    metrics.partition_released("in", 5)

    assert [({"topic": "in", "partition": "1"}, 9.0)] == _samples(metrics, "worker_consumer_lag_records")


def test_a_version_that_holds_no_more_has_no_drift_any_more() -> None:
    metrics = Metrics()
    for _ in range(REFERENCE + RECENT):
        metrics.label_drift.note("intent", 1, ("a",))
        metrics.label_drift.note("topics", 1, ("a",))
    assert 2 == len(_samples(metrics, "worker_label_drift_psi"))

    metrics.label_schema_in_force("intent", 2)

    assert [({"name": "topics", "version": "1"}, 0.0)] == _samples(metrics, "worker_label_drift_psi")


def test_a_counter_with_known_labels_is_there_before_it_moves() -> None:
    metrics = Metrics()
    metrics.label_schema_in_force("kinds", 1)

    assert {FAILED, OUT_OF_MEMORY, BROKEN} == set(ENGINE_FAILURES)
    kinds = [({"kind": kind}, 0.0) for kind in ENGINE_FAILURES]
    assert kinds == _samples(metrics, "worker_engine_failures_total")
    outcomes = [({"outcome": outcome}, 0.0) for outcome in TRANSACTIONS]
    assert outcomes == _samples(metrics, "worker_transactions_total")
    names = [({"name": name}, 0.0) for name in (UNKNOWN, "kinds")]
    assert names == _samples(metrics, "worker_label_schema_refusals_total")
