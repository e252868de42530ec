"""Step 10 for every binding: what is published for a record, and where."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from worker.clock import Clock
from worker.messages.binding import Binding
from worker.messages.bindings import Bindings
from worker.messages.codec import encode, utc_timestamp
from worker.messages.dead_letter import dead_letter
from worker.messages.outbound import OutputShape, Stamps
from worker.pipeline.assembly import Scored
from worker.types import ModelStamp, OutboundRecord, Prediction, Record, Refusal


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The records that predictions and refusals become."""

    bindings: Bindings
    model: ModelStamp
    clock: Clock
    max_bytes: Callable[[str], int]
    """The largest record that a topic takes."""
    framed: Callable[[OutboundRecord, Binding], OutboundRecord] = lambda record, _binding: record
    """A prediction in the output format of its binding; raises MessageError."""

    def predictions(self, prediction: Prediction, scored: Scored) -> tuple[OutboundRecord, ...]:
        """The prediction, and a copy for each selected label that has a route.

        Raises:
            MessageError: one of them cannot be encoded; then none is to be published.
        """
        record, schema = scored.record, scored.plan.schema
        binding, now_seconds = self.bindings[record.topic], self.clock.wall()
        stamps = Stamps(
            schema.name,
            schema.version,
            schema.digest,
            self.model,
            utc_timestamp(int(now_seconds * 1000)) or "",
            binding.late_by(record.timestamp_ms, now_seconds) if binding.late == "mark" else None,
        )

        def to(shape: OutputShape) -> OutboundRecord:
            return self.framed(encode(prediction, scored.plan.request, record, stamps, shape), binding)

        main = binding.output_shape(self.max_bytes(binding.output_topic))
        labels = prediction.selected or (() if prediction.label is None else (prediction.label,))
        copies = ((label, binding.routes[label]) for label in labels if label in binding.routes)
        routed = (
            replace(main, topic=topic, max_bytes=self.max_bytes(topic), routed_for=label) for label, topic in copies
        )
        return (to(main), *(to(shape) for shape in routed))

    def dead_letter(self, record: Record, refusal: Refusal) -> OutboundRecord:
        """The dead letter of `record`."""
        topic = self.bindings[record.topic].dead_letter_topic
        return dead_letter(record, refusal, topic, max_bytes=self.max_bytes(topic))
