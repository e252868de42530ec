"""A Faust agent that takes what is there and hands it to the transformers pipeline on a thread."""

import asyncio
import json
import logging
from typing import Any

import faust
import protocol
from zero_shot import ZeroShot

COMMIT_SECONDS = 1.0
MOST_TEXTS = 32


def main() -> None:
    """Make every run that the bench asks for."""
    given = protocol.settings()
    logging.disable(logging.CRITICAL)
    model = ZeroShot(given)
    for dtype in given["dtypes"]:
        model.labels(["a text to warm up with"] * 2, dtype, 8)
    protocol.ready("faust-streaming", "torch", "transformers")
    for run in protocol.runs():
        asyncio.run(_run(model, given, run))


async def _run(model: ZeroShot, given: protocol.Settings, run: protocol.Settings) -> None:
    app = faust.App(
        run["group"],
        broker=f"kafka://{given['bootstrap_servers']}",
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_commit_interval=COMMIT_SECONDS,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=None,
    )
    source = app.topic(run["input"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    target = app.topic(run["output"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    done = asyncio.Event()
    answered = 0

    @app.agent(source)
    async def classify(stream: Any) -> None:  # noqa: ANN401  faust does not say what it gives
        nonlocal answered
        async for events in stream.take_events(MOST_TEXTS, within=0.02):
            texts = [json.loads(event.value)["text"] for event in events]
            labels = await asyncio.to_thread(model.labels, texts, run["dtype"], run["batch"])
            for event, label in zip(events, labels, strict=True):
                value = json.dumps({"label": label}).encode()
                await target.send(key=event.key, value=value, timestamp=event.message.timestamp)
            answered += len(events)
            if answered >= run["messages"]:
                done.set()

    protocol.say(event="started")
    await app.start()
    await done.wait()
    await app.stop()
    protocol.say(event="done")


if __name__ == "__main__":
    main()
