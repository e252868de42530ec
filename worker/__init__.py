"""Streaming text classification: Kafka in, labels decided by an NLI model, predictions out.

Reading order is data order: kafka.consumer, messages.codec, labels.registry, pipeline.planning,
pipeline.tokenization, pipeline.batching, engines, pipeline.assembly, pipeline.decision, messages.codec,
kafka.producer, kafka.offsets. `processor` joins them; `app` builds them; `cli` is how people reach them.
"""

__version__ = "0.1.0"
