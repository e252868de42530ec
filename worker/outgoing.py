"""Step 10 for every binding: what is published for a record, and where."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from worker.clock import Clock
from worker.labels.schema import LabelSchema
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
    _shapes: dict[str, OutputShape] = field(default_factory=dict, init=False)
    _recent: dict[str, tuple[LabelSchema, int, Stamps]] = field(default_factory=dict, init=False)

    def predictions(self, prediction: Prediction, scored: Scored) -> tuple[OutboundRecord, ...]:
        """The prediction, and a copy for each selected label that has a route.

        Raises:
            MessageError: one of them cannot be encoded; then none is to be published.
        """
        record, now_seconds = scored.record, self.clock.wall()
        binding = self.bindings[record.topic]
        late_seconds = binding.late_by(record.timestamp_ms, now_seconds) if binding.late == "mark" else None
        stamps = self._stamps(scored.plan.schema, int(now_seconds * 1000), late_seconds)
        main, request = self._shape(binding), scored.plan.request
        prediction_record = self.framed(encode(prediction, request, record, stamps, main), binding)
        if not binding.routes:
            return (prediction_record,)
        labels = prediction.selected or (() if prediction.label is None else (prediction.label,))
        copies = ((label, binding.routes[label]) for label in labels if label in binding.routes)
        routed = (
            replace(main, topic=topic, max_bytes=self.max_bytes(topic) - binding.frame_bytes, routed_for=label)
            for label, topic in copies
        )
        more = (self.framed(encode(prediction, request, record, stamps, shape), binding) for shape in routed)
        return (prediction_record, *more)

    def _stamps(self, schema: LabelSchema, now_ms: int, late_seconds: float | None) -> Stamps:
        """What predictions of this millisecond under `schema` say: made once for all of them."""
        kept = self._recent.get("stamps")
        if late_seconds is None and kept is not None and kept[0] is schema and kept[1] == now_ms:
            return kept[2]
        stamps = Stamps(
            schema.name, schema.version, schema.digest, self.model, utc_timestamp(now_ms) or "", late_seconds
        )
        if late_seconds is None:
            self._recent["stamps"] = (schema, now_ms, stamps)
        return stamps

    def _shape(self, binding: Binding) -> OutputShape:
        kept = self._shapes.get(binding.input)
        max_bytes = self.max_bytes(binding.output_topic if kept is None else kept.topic) - binding.frame_bytes
        if kept is None or kept.max_bytes != max_bytes:
            kept = self._shapes[binding.input] = binding.output_shape(max_bytes)
        return kept

    def dead_letter(self, record: Record, refusal: Refusal) -> OutboundRecord:
        """The dead letter of `record`."""
        topic = self.bindings[record.topic].dead_letter_topic
        return dead_letter(record, refusal, topic, max_bytes=self.max_bytes(topic))
