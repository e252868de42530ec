"""A plain consumer loop around the transformers pipeline: what one would write first, written well."""

import json
import time

import protocol
from confluent_kafka import Consumer, Message, Producer
from zero_shot import ZeroShot

COMMIT_SECONDS = 1.0
MOST_TEXTS = 32
"""Messages taken at once; the pipeline cuts their pairs into batches."""


def main() -> None:
    """Make every run that the bench asks for."""
    given = protocol.settings()
    model = ZeroShot(given)
    for dtype in given["dtypes"]:
        model.labels(["a text to warm up with"] * 2, dtype, 8)
    protocol.ready("torch", "transformers", "confluent-kafka")
    for run in protocol.runs():
        _run(model, given, run)


def _run(model: ZeroShot, given: protocol.Settings, run: protocol.Settings) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": given["bootstrap_servers"],
            "group.id": run["group"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": given["bootstrap_servers"], "enable.idempotence": True})
    assigned: list[int] = []
    consumer.subscribe([run["input"]], on_assign=lambda _consumer, partitions: assigned.append(len(partitions)))
    while not assigned:
        consumer.consume(1, 0.1)
    protocol.say(event="started")
    done, committed_at = 0, time.monotonic()
    # One message at a time where the batch holds the pairs of one; else as many as are there.
    texts_at_once = 1 if run["batch"] == 1 else MOST_TEXTS
    while done < run["messages"]:
        messages = consumer.consume(texts_at_once, 0.01)
        if messages:
            done += _answer(model, run, messages, producer)
        if time.monotonic() - committed_at >= COMMIT_SECONDS and done:
            producer.flush()
            consumer.commit(asynchronous=False)
            committed_at = time.monotonic()
    producer.flush()
    consumer.commit(asynchronous=False)
    consumer.close()
    protocol.say(event="done")


def _answer(model: ZeroShot, run: protocol.Settings, messages: list[Message], producer: Producer) -> int:
    labels = model.labels([json.loads(each.value())["text"] for each in messages], run["dtype"], run["batch"])
    for message, label in zip(messages, labels, strict=True):
        value = json.dumps({"label": label})
        producer.produce(run["output"], value, message.key(), timestamp=message.timestamp()[1])
    producer.poll(0)
    return len(messages)


if __name__ == "__main__":
    main()
