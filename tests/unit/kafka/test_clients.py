"""What is told of a cluster that does not answer."""

import pytest

from worker.errors import RetryableError
from worker.kafka.topics import TopicDirectory


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ("localhost:1", "localhost:1"),
        ("localhost:1, 127.0.0.1:2", "localhost:1, 127.0.0.1:2"),
        ("user:zq-marker-7f3@localhost:1", "localhost:1"),
        ("localhost:1,user:one,zq-marker-7f3@localhost:2", "localhost:2"),
    ],
)
def test_a_broker_that_does_not_answer_is_named_without_credentials(servers: str, told: str) -> None:
    directory = TopicDirectory({"bootstrap.servers": servers, "log_level": 0}, timeout_seconds=0.1)
    with pytest.raises(RetryableError) as caught:
        directory.refresh(())
    assert str(caught.value).startswith(f"no broker answers at {told} (")
    assert "zq-marker" not in str(caught.value)
