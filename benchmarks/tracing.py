"""What tracing adds to the path of a record, on the worker's own threads, in microseconds; the sending is not in it.

python benchmarks/tracing.py
"""

import time

import numpy as np
from opentelemetry.sdk.trace import SpanProcessor

from worker.observability.otel import SpanTracing
from worker.observability.tracing import UNTRACED, Reader, Tracing
from worker.tracing_settings import TracingSettings
from worker.types import Batch, Finished, PairRef, Record

RECORDS = 20_000
AT_ONCE = 200
REPEATS = 5
TRACED = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("content-type", b"text/json"))
UNSAMPLED = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), TRACED[1])


def microseconds(tracing: Tracing, headers: tuple[tuple[str, bytes], ...]) -> float:
    """Per record, the best of several runs."""
    return min(_run(tracing, headers) for _ in range(REPEATS)) / RECORDS * 1e6


def _run(tracing: Tracing, headers: tuple[tuple[str, bytes], ...]) -> float:
    chunks = [
        [Record("in", 0, first + offset, 1, None, b"{}", headers) for offset in range(AT_ONCE)]
        for first in range(0, RECORDS, AT_ONCE)
    ]
    tokens, refs = np.zeros(AT_ONCE, np.int32), [PairRef(number, 0) for number in range(1, RECORDS + 1)]
    started = time.perf_counter()
    for place, chunk in enumerate(chunks):
        first = place * AT_ONCE
        records = tracing.taken_in(chunk, first + 1)
        with tracing.scoring(Batch(tuple(refs[first : first + AT_ONCE]), tokens, tokens, tokens)):
            pass
        tracing.settled(records, [Finished(record, ()) for record in records])
    return time.perf_counter() - started


def main() -> None:
    """Print one line per case."""
    tracing = SpanTracing(SpanProcessor(), TracingSettings(), Reader("group", "pod-0"))
    off = microseconds(UNTRACED, TRACED)
    print(f"off                  {off:6.2f}")
    print(f"on, not sampled      {microseconds(tracing, UNSAMPLED) - off:6.2f} more")
    print(f"on, sampled          {microseconds(tracing, TRACED) - off:6.2f} more")


if __name__ == "__main__":
    main()
