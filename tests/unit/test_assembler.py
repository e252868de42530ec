"""What the parts of a worker are told of each other."""

import json
import re

from worker import __version__
from worker.assembler import Assembler
from worker.clock import ManualClock
from worker.config import Config
from worker.observability.health import answer

GROUP = "support"


def assembled(clock: ManualClock) -> Assembler:
    kafka = {"bootstrap_servers": "127.0.0.1:1", "group_id": GROUP}
    return Assembler(Config.model_validate({"kafka": kafka, "topics": [{"input": "in"}]}), clock)


def told(make: Assembler) -> tuple[bool, float]:
    """Readiness as `/readyz` says it and as `/metrics` does."""
    probes = make.probes()
    ready = json.loads(answer("/readyz", probes, "").body)["ready"]
    shown = re.search(r"^worker_ready (\S+)$", answer("/metrics", probes, "").body.decode(), re.MULTILINE)
    assert shown is not None
    return ready, float(shown[1])


def test_the_metrics_say_of_readiness_what_readyz_says() -> None:
    clock = ManualClock()
    make = assembled(clock)
    assert (True, 1.0) == told(make)

    make.readiness.block("topic:in", "in: waiting for in.predictions")
    assert (False, 0.0) == told(make)

    make.readiness.clear("topic:in")
    make.heartbeats.register("poll", 30.0)
    assert (True, 1.0) == told(make)
    clock.advance(31.0)
    assert (False, 0.0) == told(make), "a thread is silent"


def test_the_metrics_name_the_version_and_the_group() -> None:
    shown = assembled(ManualClock()).metrics.render().decode()
    assert f'worker_info{{group="{GROUP}",version="{__version__}"}} 1.0\n' in shown
