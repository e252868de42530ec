"""Quix Streams with the transformers pipeline applied to each message."""

import logging

import protocol
from quixstreams import Application
from zero_shot import ZeroShot

COMMIT_SECONDS = 1.0


def main() -> None:
    """Make every run that the bench asks for."""
    given = protocol.settings()
    logging.disable(logging.CRITICAL)
    model = ZeroShot(given)
    for dtype in given["dtypes"]:
        model.labels(["a text to warm up with"] * 2, dtype, 8)
    protocol.ready("quixstreams", "torch", "transformers", "confluent-kafka")
    for run in protocol.runs():
        _run(model, given, run)


def _run(model: ZeroShot, given: protocol.Settings, run: protocol.Settings) -> None:
    app = Application(
        broker_address=given["bootstrap_servers"],
        consumer_group=run["group"],
        auto_offset_reset="earliest",
        commit_interval=COMMIT_SECONDS,
        auto_create_topics=False,
        loglevel=None,
    )
    source = app.topic(run["input"], key_deserializer="bytes", value_deserializer="json")
    target = app.topic(run["output"], key_serializer="bytes", value_serializer="json")

    def classify(event: dict[str, str]) -> dict[str, str]:
        return {"label": model.labels([event["text"]], run["dtype"], run["batch"])[0]}

    app.dataframe(source).apply(classify).to_topic(target)
    # Its own consumer joins inside `run`: the time of that counts against no one, the first message is sent later.
    protocol.say(event="started")
    app.run(count=run["messages"], timeout=given["patience_seconds"])
    protocol.say(event="done")


if __name__ == "__main__":
    main()
