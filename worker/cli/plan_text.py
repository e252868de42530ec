"""What `worker plan` prints: each figure with how it came about."""

import math
from collections.abc import Iterator
from dataclasses import asdict

from worker.capacity import (
    BUNDLED_FIGURE,
    DRAIN_SECONDS,
    SPECIAL_TOKENS,
    Machine,
    Plan,
    Workload,
    hypotheses_per_message,
    partitions_for,
    windows_per_message,
)

_MIB = 1024 * 1024


def as_object(workload: Workload, machine: Machine, found: Plan, *, is_measured: bool) -> dict[str, object]:
    """What was asked and what came of it; endless numbers are null."""
    figures = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(found).items()
    }
    return {
        "workload": asdict(workload),
        "machine": {**asdict(machine), "tokens_per_second_given": is_measured},
        "plan": figures,
    }


def lines(workload: Workload, machine: Machine, found: Plan, *, is_measured: bool) -> Iterator[str]:
    """The plan for people."""
    yield from _work(workload, found)
    yield ""
    yield from _workers(workload, machine, found)
    yield ""
    yield from _kafka(found)
    yield ""
    yield from _settings(found)
    if not is_measured:
        yield ""
        yield f"No --tokens-per-second: planned with {BUNDLED_FIGURE}."
        yield "For another model or machine run `worker bench engine` there: tokens_per_second of its workloads."


def _work(workload: Workload, found: Plan) -> Iterator[str]:
    scored, windows = hypotheses_per_message(workload), windows_per_message(workload)
    yield _line("pairs a message", found.pairs_per_message, f"{_number(scored)} hypotheses x {windows} windows")
    parts = f"text + {workload.hypothesis_tokens} of the hypothesis + {SPECIAL_TOKENS}"
    yield _line("tokens a pair", found.tokens_per_pair, parts)
    cached = f" x {1 - workload.repeats:g} not from the cache" if workload.repeats else ""
    yield _line("pairs/s", found.pairs_per_second, f"{workload.messages_per_second:g} messages/s x pairs{cached}")
    yield _line("tokens/s", found.tokens_per_second, "pairs/s x tokens a pair")
    yield _line("at the peak", found.peak_tokens_per_second, f"tokens/s x {workload.peak_factor:g}")


def _workers(workload: Workload, machine: Machine, found: Plan) -> Iterator[str]:
    how = f"{machine.tokens_per_second:,.0f} tokens/s x {machine.engine_share:g} x {machine.utilisation:g}"
    yield _line("one worker", found.worker_tokens_per_second, f"tokens/s: {how}")
    yield _line("", found.worker_messages_per_second, "messages/s")
    if found.workers is None:
        yield _line(
            "workers", "none", f"{found.partitions} partitions do not suffice: {found.partitions_needed} or more"
        )
    else:
        busiest = f"the busiest has {found.busiest_share:.1%} of the records"
        yield _line("workers", found.workers, f"at the peak; {busiest}")
        yield _line("", found.workers_on_average, "on average; as many GPUs, where the figure is that of one")
    yield _line("memory", f"{found.memory_mib} MiB", "of one worker, at most, with the default limits")
    if found.catch_up_seconds is None:
        yield _line("after an outage", "never", "the backlog grows at the average rate")
    else:
        minutes = f"{found.catch_up_seconds / 60:,.1f} min"
        yield _line(
            "after an outage", minutes, "until 10 minutes without a worker are made up for, at the average rate"
        )
    if workload.shortlist is None and workload.labels > 50:  # noqa: PLR2004  where a shortlist begins to pay
        yield "Many labels: `shortlist: {top_k: …}` in the label schema costs only the likest ones; see --shortlist."


def _kafka(found: Plan) -> Iterator[str]:
    yield _line("partitions", found.partitions, f"of the input topics; {found.partitions_needed} is the least")
    yield _line("read", f"{found.bytes_in_per_second / _MIB:,.2f} MiB/s", "uncompressed")
    yield _line("written", f"{found.bytes_out_per_second / _MIB:,.2f} MiB/s", "uncompressed, times the replicas")


def _settings(found: Plan) -> Iterator[str]:
    if found.workers is None:
        told = f"Create the input topics with {partitions_for(found.partitions_needed)} partitions, and plan again"
        yield f"{told}; faster machines, fewer labels, a shortlist or shorter texts need fewer."
        return
    yield "In the values of the Helm chart:"
    yield f"  replicas: {found.workers}"
    yield (
        f"  autoscaling: {{minReplicas: {found.workers_on_average}, maxReplicas: {found.partitions}, "
        f"lagPerReplica: {found.lag_per_replica}}}    # what one does in {DRAIN_SECONDS} s"
    )
    limit = math.ceil(found.memory_mib / 256) * 256
    # Both, because a request of the chart's own could be above the limit, which Kubernetes refuses.
    yield f"  resources: {{requests: {{memory: {limit}Mi}}, limits: {{memory: {limit}Mi}}}}"


def _line(what: str, figure: object, how: str) -> str:
    shown = _number(figure) if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else str(figure)
    return f"{what:<16} {shown:>12}  {how}".rstrip()


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "endless"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:,.2f}"  # noqa: PLR2004  three digits
