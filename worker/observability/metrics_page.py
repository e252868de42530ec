"""The page docs/metrics.md, from the metrics themselves: `python -m worker.observability.metrics_page`."""

import sys
from collections.abc import Mapping

from worker.observability.drift import NAMED_CLASSES, RECENT, REFERENCE
from worker.observability.metrics import Definition, Metrics

_LISTED = """`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_start_time_seconds`, `process_open_fds`, `process_max_fds`"""
_HEAD = """# Metrics

Written by `python -m worker.observability.metrics_page` from `worker/observability/metrics.py`; a test keeps it up to
date.

What `/metrics` says, for Prometheus. [Operations](operations.md) has a section for each alert of
`deploy/prometheus/worker-rules.yml`; the dashboard is `deploy/grafana/dashboards/worker.json`.
Labels are bounded: topics, partitions, codes, label schemas and their versions; never a text, a key, a label or an
offset. A histogram is three series, `NAME_bucket`, `NAME_sum` and `NAME_count`.

| name | type | labels | unit | meaning | what to look at |
|---|---|---|---|---|---|
"""
_TAIL = f"""
`worker run --workers N` adds the label `process` to all of them, and has one of its own:
`worker_process_restarts_total`, processes that died and were started again. Prometheus' client adds, on Linux,
{_LISTED}.
There is nothing else.

Labels say which topic, reason or stage. Which deployment it was, Prometheus adds: `job`, and on Kubernetes `namespace`
and `service`; the consumer group is in `worker_info`, for whoever has several groups in one job:
`sum by (job, group) (worker_consumer_lag_records * on (job, instance, process) group_left (group) worker_info)`.
A version of a label schema holds for its name, not for a topic: several topics, a pattern, and messages that name it
themselves may use it, so `worker_label_schema_info` has it once.

## Label drift

`worker_label_drift_psi` compares what is selected now with what was selected first, for each version of a label
schema: the sum over classes of (q - p) · ln(q / p), where p is the share of a class in the first {REFERENCE:,}
predictions under that version, and q its share in the latest {RECENT:,} after those. Classes are the {NAMED_CLASSES}
labels selected most in the reference, all others as one, and "none selected"; a message with several labels counts for
each. Half an observation is added to each class. Until both windows are full there is no value.
The reference is that of the process: it begins anew with a restart, and with a new version. Label sets that messages
bring along are left out.

Rule of thumb (N. Siddiqi, *Credit Risk Scorecards*, 2006): up to 0.1 nothing has changed, above 0.25 look at it.
Chance alone gives about (classes - 1) · (1/{REFERENCE} + 1/{RECENT}), so 0.02 with all classes in use
(B. Yurdakul, *Statistical Properties of Population Stability Index*, 2018).
What comes and goes with the hour of the day is drift, too, by this measure: alert on what stays.
"""

_UNITS: Mapping[str, str] = {
    "info": "1",
    "ready": "0 or 1",
    "seconds": "seconds",
    "bytes": "bytes",
    "ratio": "share, 0 to 1",
    "psi": "index",
    "tokens": "tokens",
    "pairs": "pairs",
    "records": "records",
    "predictions": "predictions",
    "abstentions": "predictions",
    "letters": "records",
    "failures": "calls",
    "audits": "messages",
    "partitions": "partitions",
    "transactions": "transactions",
    "refusals": "changes",
}
"""Word of a name -> unit; the first that is in a name counts."""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(each) for each in Metrics().definitions) + _TAIL


def unit_of(name: str) -> str:
    """What a metric of this name counts or measures. Raises LookupError where no word of it says so."""
    words = name.split("_")
    return next(unit for word, unit in _UNITS.items() if word in words)


def _row(metric: Definition) -> str:
    meaning, _, look = metric.text.partition(". ")
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    cells = (f"`{metric.name}`", metric.kind, labels, unit_of(metric.name), f"{meaning}.", look.replace("|", "\\|"))
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
