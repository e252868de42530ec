"""The poll thread's work on records, steps 2 to 6: bytes to queued pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from worker.errors import ErrorCode, MessageError, Stage, WorkerError
from worker.flow import Admitted, Inbox, InFlight, NotAdmitted, PairQueue
from worker.labels.schema import LabelSchema
from worker.observability.metrics import Metrics
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Record, Refusal, Request, TokenizedPairs

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IntakeParts:
    """What intake works with."""

    decode: Callable[[Record], Request]
    """Step 2 for the record's topic; raises MessageError."""
    resolve: Callable[[Request, str], LabelSchema]
    """Step 3 for a request and the topic it came from; raises MessageError."""
    tokenizer: PairTokenizer
    max_pairs: int
    in_flight: InFlight
    inbox: Inbox
    pairs: PairQueue
    metrics: Metrics
    note_cost: Callable[[str, int], None]
    """Told of each record's topic how many tokens the record asks the engine for."""


class Intake:
    """Admits records: each gets a number and its place in line, as pairs to score or as a dead letter."""

    def __init__(self, parts: IntakeParts) -> None:
        self._parts = parts
        self._admitted = 0

    def admit(self, records: Sequence[Record]) -> None:
        """Take `records` in, in their order."""
        plans = [self._plan(record) for record in records]
        pairs = self._parts.tokenizer.tokenize([plan for plan in plans if isinstance(plan, PairPlan)])
        tokens = sum(len(each.token_ids) for each in pairs if isinstance(each, TokenizedPairs))
        self._parts.in_flight.note_cost(len(records), tokens)
        tokenized = iter(pairs)
        for record, plan in zip(records, plans, strict=True):
            if isinstance(plan, PairPlan):
                self._enter(record, plan, next(tokenized))
            else:
                self._refuse(record, plan)
            self._parts.metrics.records_consumed.labels(topic=record.topic).inc()

    def _plan(self, record: Record) -> PairPlan | Refusal:
        try:
            request = self._parts.decode(record)
            schema = self._parts.resolve(request, record.topic)
            return plan_pairs(request, schema, self._parts.max_pairs)
        except MessageError as error:
            return Refusal.of(error)
        except WorkerError:
            raise  # not the record's fault
        except Exception as error:  # noqa: BLE001  whatever a record breaks, it hurts only itself
            log.error("message.decoding_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote it
            return Refusal(ErrorCode.PAYLOAD_INVALID, Stage.DECODE, "the message could not be read")

    def _enter(self, record: Record, plan: PairPlan, pairs: TokenizedPairs | MessageError) -> None:
        if isinstance(pairs, MessageError):
            self._refuse(record, Refusal.of(pairs))
            return
        number = self._number(record)
        # First the place in line, then the pairs: a score can never arrive before its message.
        self._parts.inbox.put(Admitted(number, record, plan, pairs))
        self._parts.pairs.add(number, pairs)
        self._parts.note_cost(record.topic, len(pairs.token_ids))

    def _refuse(self, record: Record, refusal: Refusal) -> None:
        self._parts.inbox.put(NotAdmitted(self._number(record), record, refusal))
        self._parts.note_cost(record.topic, 0)

    def _number(self, record: Record) -> int:
        self._parts.in_flight.admit(record)
        self._admitted += 1
        return self._admitted
