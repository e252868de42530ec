"""The label curve asks every contestant about the same texts and labels."""

from typing import Any, cast

from worker.bench.labels import NLI, ONE_PASS, _cost
from worker.bench.peers import Peer
from worker.bench.workloads import Recipe, workload
from worker.engines.load import EngineChoice, load_engine


class ScriptedPeer:
    """Takes two seconds for whatever it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def tell(self, values: dict[str, Any]) -> None:
        self.asked.append(values)

    def expect(self, event: str) -> dict[str, Any]:
        return {"event": event, "seconds": 2.0}


def test_a_row_of_the_curve_is_the_cost_of_one_text() -> None:
    made, peer = workload(Recipe("short", 4, 3)), ScriptedPeer()
    model = load_engine(EngineChoice(engine="fake"))

    cost = _cost(made, 2, {NLI: model, ONE_PASS: model}, cast("Peer", peer))

    assert (3, 500.0) == (cost.labels, cost.gliclass_library)
    assert 0 < cost.nli
    assert 0 < cost.gliclass_engine
    assert [{"texts": made.texts, "labels": made.labels}] * 2 == peer.asked
