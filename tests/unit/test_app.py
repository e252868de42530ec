"""A worker that starts: what it answers while its engine is made."""

from http.client import HTTPConnection
from typing import NoReturn

import pytest

from worker import app
from worker.config import fixed_config
from worker.engines.choice import EngineChoice
from worker.errors import EngineError
from worker.kafka.embedded_storage import free_port
from worker.types import JsonValue


def test_a_worker_whose_engine_is_being_built_is_alive_and_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build takes minutes, and no probe may end it."""
    port = free_port()
    answers: dict[str, int] = {}

    def build(choice: EngineChoice) -> NoReturn:
        del choice
        for path in ("/livez", "/readyz"):
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            answers[path] = connection.getresponse().status
            connection.close()
        raise EngineError("enough is known")

    monkeypatch.setattr(app, "load_engine", build)
    kafka: JsonValue = {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"}
    config = fixed_config({"kafka": kafka, "topics": [{"input": "in"}], "http": {"port": port}})
    with pytest.raises(EngineError, match="enough"), app.open_worker(config):
        pass
    assert {"/livez": 200, "/readyz": 503} == answers
