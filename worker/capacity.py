"""From messages a second to workers, partitions, memory and bytes: the arithmetic of `worker plan`. Pure.

Every function is one formula of docs/capacity.md. Nothing here measures: what an engine does a second is given.
"""

import math
from dataclasses import dataclass
from typing import Final

SPECIAL_TOKENS: Final = 3
"""Per pair: one in front, one after the text, one after the hypothesis (BERT's; others have 3 or 4)."""
ENGINE_SHARE: Final = 0.82
"""What the whole worker reaches of the engine by itself (docs/benchmarks.md, 2026-11-21)."""
UTILISATION: Final = 0.7
"""Of what it reaches: at 70 % of saturation the 99th percentile was 0.8 s, at 90 % 2 s (docs/benchmarks.md)."""
OVERLAP_TOKENS: Final = 32
"""The default of a label schema's `long_text.overlap_tokens`."""
BYTES_PER_TOKEN: Final = 5
"""UTF-8 bytes of English text per token, its spaces included; an assumption where `message_bytes` is not given."""
EVENT_BYTES: Final = 100
"""What an event has beside its text; the same assumption."""
PREDICTION_BYTES: Final = 900
"""A prediction without its event and its scores: ids, digests, source, and the headers."""
SCORE_BYTES: Final = 50
"""One entry of `scores`, with a label of a dozen letters."""
BUNDLED_TOKENS_PER_SECOND: Final = 27_000.0
"""379 pairs of 71.55 tokens a second, on the clock: the figure below (docs/benchmarks.md, 2026-11-21)."""
BUNDLED_FIGURE: Final = "the bundled model in bfloat16 on two cores with AMX, as docs/benchmarks.md has it"
PROCESS_MIB: Final = 90
"""A worker without model, resident (docs/backpressure.md, 2026-11-21)."""
BUNDLED_MODEL_MIB: Final = 306
"""The bundled model on OpenVINO with its compiled shapes: 396 MiB for the whole worker, less the line above."""
FETCH_MIB: Final = 66
"""What the client may hold of what was fetched: 16 MiB and one response of 50 (docs/backpressure.md)."""
IN_FLIGHT_MIB: Final = 64
"""The default of `limits.in_flight_bytes`; an event stands in memory twice while it is published."""
CACHE_MIB: Final = 64
"""The default of `batching.cache_bytes`."""
COUNTS: Final = (1, 2, 3, 6, 12, 24, 36, 48, 60, 120, 180, 240, 360, 720, 1440, 2880)
"""Numbers of partitions that many numbers of workers divide."""
GROWTH: Final = 2
"""How many times the workers there may be before a topic needs more partitions, which would move its keys."""
DRAIN_SECONDS: Final = 60
"""In how long a worker should do what `lagPerReplica` of KEDA lets it have."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked: averages over messages, rates over a busy day."""

    messages_per_second: float
    labels: int
    tokens: int
    """Of the text alone."""
    hypothesis_tokens: int = 10
    hypotheses_per_label: int = 1
    """Templates, and one more where labels have a `negative`."""
    shortlist: int | None = None
    """`shortlist.top_k` of the label schema."""
    audit_every: int = 500
    """`batching.shortlist_audit_every`; 0: none."""
    max_pair_tokens: int = 512
    windows: bool = False
    """`long_text: {strategy: windows}`; else what does not fit is cut."""
    repeats: float = 0.0
    """Share of messages whose text was scored not long ago: their pairs come from the cache."""
    peak_factor: float = 2.0
    """The busiest minutes, compared with the average."""
    message_bytes: int | None = None
    """Of an event, key and headers included; None: guessed from `tokens`."""
    with_event: bool = True
    """`emit: envelope` or `merge`; false: `emit: prediction`."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What one worker does, measured where it will run."""

    tokens_per_second: float
    """By `worker bench engine`: of pairs, padding not counted."""
    engine_share: float = ENGINE_SHARE
    utilisation: float = UTILISATION
    model_mib: int = BUNDLED_MODEL_MIB
    """The model in its engine, in the memory of the machine."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to set; rates are per second."""

    tokens_per_pair: float
    pairs_per_message: float
    pairs_per_second: float
    """On average, those from the cache not counted."""
    tokens_per_second: float
    peak_tokens_per_second: float
    worker_tokens_per_second: float
    """What one worker is planned to do."""
    worker_messages_per_second: float
    workers: int | None
    """At the peak, by the busiest one's share of the partitions; None: the partitions do not suffice."""
    workers_on_average: int
    partitions_needed: int
    partitions: int
    """The given number, or one that leaves room to grow."""
    busiest_share: float
    """Of all records, what the worker with most partitions has."""
    catch_up_seconds: float | None
    """After ten minutes without any worker, at the average rate; None: never."""
    memory_mib: int
    """Of one worker, at most."""
    bytes_in_per_second: float
    bytes_out_per_second: float
    """Before compression and replication."""
    lag_per_replica: int
    """KEDA's threshold: the records that one worker does in a minute."""


def hypotheses_per_message(workload: Workload) -> float:
    """Hypotheses that are scored with each window: n = min(k, L) · h, and L · h for one message in `audit_every`."""
    scored = float(workload.labels)
    if workload.shortlist is not None and workload.shortlist < workload.labels:
        audited = 1 / workload.audit_every if workload.audit_every else 0.0
        scored = workload.shortlist + audited * (workload.labels - workload.shortlist)
    return scored * workload.hypotheses_per_label


def windows_per_message(workload: Workload) -> int:
    """Windows w = 1 + ⌈(t - room) / (room - overlap)⌉ where a text does not fit beside its hypothesis, else 1."""
    room = _room(workload)
    if not workload.windows or workload.tokens <= room:
        return 1
    return 1 + math.ceil((workload.tokens - room) / max(1, room - OVERLAP_TOKENS))


def tokens_per_pair(workload: Workload) -> float:
    """Text of a window + hypothesis + special tokens, on average over the windows."""
    count = windows_per_message(workload)
    text = (
        min(workload.tokens, _room(workload))
        if count == 1
        else (workload.tokens + (count - 1) * OVERLAP_TOKENS) / count
    )
    return text + workload.hypothesis_tokens + SPECIAL_TOKENS


def pairs_per_message(workload: Workload) -> float:
    """Pairs p = n · w: hypotheses times windows, the cache not counted."""
    return hypotheses_per_message(workload) * windows_per_message(workload)


def pairs_per_second(workload: Workload) -> float:
    """Pairs/s = m · p · (1 - repeats): what is left for the engine."""
    return workload.messages_per_second * pairs_per_message(workload) * (1 - workload.repeats)


def tokens_per_second(workload: Workload) -> float:
    """Pairs a second times tokens of a pair."""
    return pairs_per_second(workload) * tokens_per_pair(workload)


def planned_tokens_per_second(machine: Machine) -> float:
    """What one worker is given to do: measured tokens/s · engine share · utilisation."""
    return machine.tokens_per_second * machine.engine_share * machine.utilisation


def busiest_share(partitions: int, workers: int) -> float:
    """Share = ⌈P / W⌉ / P: of all records, what the worker with most partitions has, where keys are spread evenly."""
    return math.ceil(partitions / workers) / partitions


def workers_for(load: float, partitions: int) -> int | None:
    """The fewest workers of which none has more than it can do; None where one partition is too much for one worker.

    `load` is what is asked of all, in workers' worth of work.
    """
    for workers in range(max(1, math.ceil(load)), partitions + 1):
        if busiest_share(partitions, workers) * load <= 1:
            return workers
    return None


def partitions_for(load: float) -> int:
    """Enough for `GROWTH` times the workers that `load` asks for, and divisible by many numbers of them."""
    wanted = GROWTH * max(1, math.ceil(load))
    return next((count for count in COUNTS if count >= wanted), wanted)


def memory_mib(machine: Machine) -> int:
    """Process + model + fetched + twice what is in flight + cache: an upper bound with the default limits."""
    return PROCESS_MIB + machine.model_mib + FETCH_MIB + 2 * IN_FLIGHT_MIB + CACHE_MIB


def event_bytes(workload: Workload) -> int:
    """As given, or guessed from the tokens of the text."""
    guess = EVENT_BYTES + BYTES_PER_TOKEN * workload.tokens
    return guess if workload.message_bytes is None else workload.message_bytes


def output_bytes(workload: Workload) -> float:
    """A prediction: its own fields, one entry per scored label, and the event where it goes along."""
    scored = hypotheses_per_message(workload) / workload.hypotheses_per_label
    event = event_bytes(workload) if workload.with_event else 0
    return PREDICTION_BYTES + SCORE_BYTES * scored + event


def catch_up_seconds(workload: Workload, capacity: float, outage_seconds: float = 600.0) -> float | None:
    """Seconds = m · outage / (c - m): how long a backlog lasts; `capacity` c in messages a second. None: for ever."""
    rate = workload.messages_per_second
    return rate * outage_seconds / (capacity - rate) if capacity > rate else None


def make_plan(workload: Workload, machine: Machine, partitions: int | None = None) -> Plan:
    """Everything above, for one workload on one kind of machine; `partitions` of the input topics, where they exist."""
    tokens, capacity = tokens_per_second(workload), planned_tokens_per_second(machine)
    load = tokens * workload.peak_factor / capacity
    count = partitions_for(load) if partitions is None else partitions
    workers = workers_for(load, count)
    running = min(workers or count, count)
    per_message = tokens / workload.messages_per_second
    # While it catches up, a worker does all it can, not only what was planned.
    at_most = running * machine.tokens_per_second * machine.engine_share
    return Plan(
        tokens_per_pair=tokens_per_pair(workload),
        pairs_per_message=pairs_per_message(workload),
        pairs_per_second=pairs_per_second(workload),
        tokens_per_second=tokens,
        peak_tokens_per_second=tokens * workload.peak_factor,
        worker_tokens_per_second=capacity,
        worker_messages_per_second=capacity / per_message if per_message else math.inf,
        workers=workers,
        workers_on_average=workers_for(load / workload.peak_factor, count) or count,
        partitions_needed=max(1, math.ceil(load)),
        partitions=count,
        busiest_share=busiest_share(count, running),
        catch_up_seconds=catch_up_seconds(workload, at_most / per_message) if per_message else 0.0,
        memory_mib=memory_mib(machine),
        bytes_in_per_second=workload.messages_per_second * event_bytes(workload),
        bytes_out_per_second=workload.messages_per_second * output_bytes(workload),
        lag_per_replica=max(1, math.floor(DRAIN_SECONDS * capacity / per_message)) if per_message else 1,
    )


def _room(workload: Workload) -> int:
    """Tokens that a text may have beside its hypothesis."""
    return max(1, workload.max_pair_tokens - workload.hypothesis_tokens - SPECIAL_TOKENS)
