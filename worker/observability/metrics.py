"""Every metric of the worker. The help text says what to do when it moves.

The first sentence of a help text is what the metric means, the rest what to look at. docs/metrics.md is made of them.
Labels are bounded sets: topic, partition, stage, reason, outcome, schema, engine; never a text, key, label or offset.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from worker.observability.bulk import BulkHistogram
from worker.observability.drift import RECENT, REFERENCE, LabelDrift
from worker.types import ModelStamp

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LATENCIES = (*_SECONDS[:-1], 90.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
"""Minutes are told apart, and what is far beyond the quarter of an hour at which WorkerDrainsSlowly fires."""
_COUNTS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)

ENGINE_FAILURES = ("failed", "out_of_memory", "broken")
TRANSACTIONS = ("committed", "aborted", "in_doubt")
UNKNOWN = "unknown"
"""The name of a label schema whose document does not even tell that."""

READY, READY_TEXT = (
    "worker_ready",
    "1 while /readyz says that the worker is ready, else 0. At 0 for long: /readyz gives the reasons.",
)

Kind = Literal["counter", "gauge", "histogram"]


class Definition(NamedTuple):
    """A metric as it was declared."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


class Metrics:
    """The metrics of one worker, in a registry of their own: two workers in a process share nothing.

    A counter whose labels are known beforehand is there from the start, at 0: of a series that begins at 1 Prometheus
    sees no increase, and an alert would miss the first time.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """`registry` is a new one unless given."""
        # When each counter was born would be one more series for each, and nobody asks for it. The client's own switch
        # is for the whole process.
        disable_created_metrics()  # type: ignore[no-untyped-call] # the client types most of itself
        self.registry = registry or CollectorRegistry()
        self.definitions: list[Definition] = []
        """All that is declared here, in the order of the path; not what the client itself adds about the process."""
        ProcessCollector(registry=self.registry)
        self._declare_flow()
        self._declare_scoring()
        self._declare_backpressure()
        self._declare_transactions()
        self._declare_facts()

    def render(self) -> bytes:
        """All of them in the text format that Prometheus scrapes; see `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def identify(self, version: str, group: str) -> None:
        """Say which version of the worker this is, and of which consumer group."""
        self.info.clear()
        self.info.labels(version=version, group=group).set(1)

    def ask_readiness(self, is_ready: Callable[[], bool]) -> None:
        """Show from now on what `is_ready` says whenever the metrics are read; any thread may call it."""
        self.ready.set_function(is_ready)

    def label_schema_in_force(self, name: str, version: int | None) -> None:
        """Say which version of a label schema holds now; None when none does."""
        self.label_schema_refusals.labels(name=name)
        for labels in [labels for labels in self._schemas if labels[0] == name]:
            self.label_schema_info.remove(*labels)
            self._schemas.discard(labels)
        self.label_drift.in_force(name, version)
        if version is not None:
            self._schemas.add((name, str(version)))
            self.label_schema_info.labels(name=name, version=str(version)).set(1)

    def engine_in_use(self, stamp: ModelStamp) -> None:
        """Say which model, engine and precision score."""
        self.engine_info.clear()
        self.engine_info.labels(
            engine=stamp.engine, precision=stamp.precision, model=stamp.name, model_digest=stamp.digest
        ).set(1)

    def partition_released(self, topic: str, partition: int) -> None:
        """Forget the lag of a partition that another worker reads from now on."""
        if (topic, str(partition)) in self._lags:
            self._lags.discard((topic, str(partition)))
            self.consumer_lag_records.remove(topic, str(partition))

    def lag_seen(self, topic: str, partition: int, records: int) -> None:
        """How many records of a partition are not yet delivered."""
        if (topic, str(partition)) not in self._lags:
            self._lags.add((topic, str(partition)))
            for counter in (self.records_consumed, self.predictions_delivered, self.abstentions):
                counter.labels(topic=topic)
        self.consumer_lag_records.labels(topic=topic, partition=str(partition)).set(records)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        self._define(name, "counter", labels, text)
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        self._define(name, "gauge", labels, text)
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        self._define(name, "histogram", labels, text)
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _bulk_histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> BulkHistogram:
        self._define(name, "histogram", (), text)
        return BulkHistogram(name, text, buckets, self.registry)

    def _drift(self, name: str, text: str) -> LabelDrift:
        self._define(name, "gauge", ("name", "version"), text)
        return LabelDrift(name, text, self.registry)

    def _define(self, name: str, kind: Kind, labels: tuple[str, ...], text: str) -> None:
        self.definitions.append(Definition(name, kind, labels, text))

    def _declare_flow(self) -> None:
        self.records_consumed = self._counter(
            "worker_records_consumed_total",
            "Records read from Kafka. Flat while there is lag: look at /readyz for the reason.",
            ("topic",),
        )
        self.predictions_delivered = self._counter(
            "worker_predictions_delivered_total",
            "Predictions committed. Falling behind records consumed: look at the stage durations for the slow step.",
            ("topic",),
        )
        self.dead_letters = self._counter(
            "worker_dead_letters_total",
            "Records that could not be predicted, by error code. Rising: read some with `worker dead-letters show`.",
            ("topic", "reason"),
        )
        self.records_late = self._counter(
            "worker_records_late_total",
            "Records older than max_age_seconds when they were read. Rising: the worker lags, or its producers do.",
            ("topic",),
        )
        self.abstentions = self._counter(
            "worker_abstentions_total",
            "Predictions decided that select no label. Rising: texts that no label covers, or thresholds too high.",
            ("topic",),
        )
        self.end_to_end_latency_seconds = self._bulk_histogram(
            "worker_end_to_end_latency_seconds",
            "From a record's timestamp to its prediction's commit. Rising with the lag: add workers or partitions.",
            _LATENCIES,
        )
        self.stage_duration_seconds = self._histogram(
            "worker_stage_duration_seconds",
            "Time that a batch or record spends in one step of the path. Rising: the stage that grows is the slow one.",
            _SECONDS,
            ("stage",),
        )

    def _declare_scoring(self) -> None:
        self.batch_pairs = self._histogram(
            "worker_batch_pairs",
            "Pairs per engine call. Small under load: raise batching.max_tokens, or accept it as the price of latency.",
            _COUNTS,
        )
        self.batch_padding_ratio = self._histogram(
            "worker_batch_padding_ratio",
            "Share of a batch's tokens that are padding. High: texts of very different lengths meet in one batch.",
            _RATIOS,
        )
        self.pairs_scored = self._counter(
            "worker_pairs_scored_total",
            "Pairs the engine has scored: what progress means. Flat while records are in flight: the engine hangs.",
        )
        self.tokens_scored = self._counter(
            "worker_tokens_scored_total",
            "Tokens the engine has scored. Rising faster than pairs: texts are getting longer, expect less throughput.",
        )

        self.engine_failures = self._counter(
            "worker_engine_failures_total",
            "Engine calls that failed. `failed`: a bad message; `out_of_memory`: lower batching.max_tokens, or give it "
            "the device alone; `broken`: it fails for everything, look at the device and the log.",
            ("kind",),
        )
        for kind in ENGINE_FAILURES:
            self.engine_failures.labels(kind=kind)
        self.batch_tokens_allowed = self._gauge(
            "worker_batch_tokens_allowed",
            "Padded tokens a batch may have since memory ran out; 0: no limit. Above zero for long: memory is short.",
        )
        self.pairs_cached = self._counter(
            "worker_pairs_cached_total",
            "Pairs whose scores were known from before. Falling against pairs scored: texts repeat less, or later.",
        )
        self.score_cache_bytes = self._gauge(
            "worker_score_cache_bytes",
            "What the kept scores take. At batching.cache_bytes with many pairs cached: more of them may pay.",
        )
        self.shortlist_audits = self._counter(
            "worker_shortlist_audits_total",
            "Messages scored whole to audit their shortlist. Many `missed`: raise top_k, or describe labels better.",
            ("outcome",),
        )

    def _declare_backpressure(self) -> None:
        self.queue_pairs = self._gauge(
            "worker_queue_pairs",
            "Pairs that wait for the engine. Always near its limit: the engine is what is slow, add workers.",
        )
        self.queue_tokens = self._gauge(
            "worker_queue_tokens",
            "Tokens that wait for the engine. By tokens scored a second: how long a new record waits for its turn.",
        )
        self.records_in_flight = self._gauge(
            "worker_records_in_flight",
            "Records admitted and not yet committed. Never falling: delivery is stuck, look at the transactions.",
        )
        self.partitions_paused = self._gauge(
            "worker_partitions_paused",
            "Partitions not read for now. Long above zero: a full queue, or a topic or schema missing, see /readyz.",
        )
        self.partitions_assigned = self._gauge(
            "worker_partitions_assigned",
            "Partitions this worker reads. Zero: there are more workers than partitions, or the group is rebalancing.",
        )
        self._lags: set[tuple[str, str]] = set()
        self.consumer_lag_records = self._gauge(
            "worker_consumer_lag_records",
            "Records not yet delivered, by partition. Rising everywhere: add workers; in one: its key is a hot one.",
            ("topic", "partition"),
        )
        self.drain_seconds = self._gauge(
            "worker_drain_seconds",
            "Time to deliver what waits at the pace of the last minute. Rising: more comes in than goes out, add "
            "workers; +Inf: nothing is delivered although there is lag, see /readyz.",
        )

    def _declare_transactions(self) -> None:
        self.transactions = self._counter(
            "worker_transactions_total",
            "Transactions by outcome. Any but `committed` rising: look at the broker, and for a shared instance id.",
            ("outcome",),
        )
        for outcome in TRANSACTIONS:
            self.transactions.labels(outcome=outcome)
        self.transaction_duration_seconds = self._histogram(
            "worker_transaction_duration_seconds",
            "From begin to commit. Near the transaction timeout: a slow broker, or too many records per transaction.",
            _SECONDS,
        )
        self.transaction_records = self._histogram(
            "worker_transaction_records",
            "Input records per transaction. Near one under load: each commit's fixed price is paid for every record.",
            _COUNTS,
        )

    def _declare_facts(self) -> None:
        self.info = self._gauge(
            "worker_info",
            "1 for the worker's version and consumer group. Two versions for long: an upgrade that is not finished.",
            ("version", "group"),
        )
        self.ready = self._gauge(READY, READY_TEXT)
        self._schemas: set[tuple[str, str]] = set()
        self.label_schema_info = self._gauge(
            "worker_label_schema_info",
            "1 for each label schema's version in force. Differing between workers for long: see /schemas of each.",
            ("name", "version"),
        )
        self.label_schema_refusals = self._counter(
            "worker_label_schema_refusals_total",
            "Label schema changes refused. Rising: `worker schemas validate` says why; the last good version holds.",
            ("name",),
        )
        self.label_schema_refusals.labels(name=UNKNOWN)
        self.label_drift = self._drift(
            "worker_label_drift_psi",
            f"Population stability index of the labels selected: the last {RECENT} predictions against the first "
            f"{REFERENCE} of a version since this process began. Above 0.25: other messages come than at first, read "
            "some.",
        )
        self.engine_info = self._gauge(
            "worker_engine_info",
            "1 for the model, engine and precision in use. Differing between workers: they may score differently.",
            ("engine", "precision", "model", "model_digest"),
        )
