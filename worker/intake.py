"""The poll thread's work on records, steps 2 to 6: bytes to queued pairs."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import structlog

from worker.errors import ErrorCode, MessageError, Stage, WorkerError
from worker.flow import Admitted, Inbox, NotAdmitted, PairQueue, TakenIn
from worker.in_flight import InFlight
from worker.labels.schema import LabelSchema
from worker.observability.metrics import Metrics
from worker.observability.tracing import UNTRACED, Tracing
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
    tracing: Tracing = UNTRACED


class Intake:
    """Admits records: each gets a number and its place in line, as pairs to score or as a dead letter."""

    def __init__(self, parts: IntakeParts) -> None:
        self._parts = parts
        self._admitted = 0
        self._planned: tuple[Record, PairPlan | Refusal] | None = None

    def admit(self, records: Sequence[Record]) -> Sequence[Record]:
        """Take in what there is room for of `records`, in their order, and one at least; the rest of them."""
        parts = self._parts
        plans = self._plan_what_fits(records)
        rest = records[len(plans) :]
        records = parts.tracing.taken_in(records[: len(plans)], self._admitted + 1)
        pairs = self._tokenize([plan for plan in plans if isinstance(plan, PairPlan)])
        tokens = sum([len(each.token_ids) for each in pairs if isinstance(each, TokenizedPairs)])
        parts.in_flight.note_cost(len(pairs), tokens)  # dead letters say nothing of what the next record costs
        parts.in_flight.admit(*records)
        tokenized = iter(pairs)
        places: list[Admitted | NotAdmitted] = []
        for number, (record, plan) in enumerate(zip(records, plans, strict=True), start=self._admitted + 1):
            each = next(tokenized) if isinstance(plan, PairPlan) else plan
            if isinstance(plan, PairPlan) and isinstance(each, TokenizedPairs):
                places.append(Admitted(number, record, plan, each))
                parts.note_cost(record.topic, len(each.token_ids))
            else:
                refusal = Refusal.of(each) if isinstance(each, MessageError) else each
                places.append(NotAdmitted(number, record, cast("Refusal", refusal)))
                parts.note_cost(record.topic, 0)
        self._admitted += len(records)
        # First the places in line, then the pairs: a score can never arrive before its message.
        parts.inbox.put(TakenIn(places))
        parts.pairs.add_all([(place.number, place.pairs) for place in places if isinstance(place, Admitted)])
        for topic, count in Counter([record.topic for record in records]).items():
            parts.metrics.records_consumed.labels(topic=topic).inc(count)
        return rest

    def _plan_what_fits(self, records: Sequence[Record]) -> list[PairPlan | Refusal]:
        """The plans of the first of `records`: a record with a thousand labels costs what a thousand records do."""
        allowance, tokens, value_bytes = self._parts.in_flight.allowance(), 0, 0
        plans: list[PairPlan | Refusal] = []
        for record in records:
            value_bytes += len(record.value or b"")
            if plans and value_bytes > allowance.value_bytes:
                break
            plan = self._plan_once(record)
            tokens += self._most_tokens(plan) if isinstance(plan, PairPlan) else 0
            if plans and tokens > allowance.tokens:
                self._planned = record, plan
                break
            plans.append(plan)
        return plans

    def _plan_once(self, record: Record) -> PairPlan | Refusal:
        planned, self._planned = self._planned, None
        return planned[1] if planned is not None and planned[0] is record else self._plan(record)

    def _most_tokens(self, plan: PairPlan) -> int:
        try:
            return self._parts.tokenizer.most_tokens(plan)
        except (WorkerError, MemoryError):
            raise  # not the record's fault
        except Exception:  # noqa: BLE001  labels that a message brings along are tokenised here first
            return 0  # it will break the tokenizer again, and is refused then

    def _tokenize(self, plans: Sequence[PairPlan]) -> list[TokenizedPairs | MessageError]:
        try:
            return self._parts.tokenizer.tokenize(plans)
        except WorkerError:
            raise
        except Exception as error:  # noqa: BLE001  one by one it shows which record it is
            log.error("message.tokenizing_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote it
        return [self._tokenize_alone(plan) for plan in plans]

    def _tokenize_alone(self, plan: PairPlan) -> TokenizedPairs | MessageError:
        try:
            return self._parts.tokenizer.tokenize([plan])[0]
        except (WorkerError, MemoryError):
            raise  # not the record's fault
        except Exception:  # noqa: BLE001  told already
            return MessageError(ErrorCode.PAYLOAD_INVALID, Stage.TOKENIZE, "the text could not be tokenised")

    def _plan(self, record: Record) -> PairPlan | Refusal:
        try:
            request = self._parts.decode(record)
            schema = self._parts.resolve(request, record.topic)
            return plan_pairs(request, schema, self._parts.max_pairs)
        except MessageError as error:
            return Refusal.of(error)
        except (WorkerError, MemoryError):
            raise  # not the record's fault
        except Exception as error:  # noqa: BLE001  whatever a record breaks, it hurts only itself
            log.error("message.decoding_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote it
            return Refusal(ErrorCode.PAYLOAD_INVALID, Stage.DECODE, "the message could not be read")
