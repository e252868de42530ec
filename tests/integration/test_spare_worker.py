"""More workers than partitions: who has none waits for one to come free, and that is as it should be."""

from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import stays, wait_until
from tests.support.worker import get as ask
from tests.support.worker import running, set_up, wait_ready

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_for_which_there_is_no_partition_is_ready_and_takes_over(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, protocol: str
) -> None:
    inputs = topics("narrow", partitions=1)
    kafka.create_topics(dict.fromkeys((f"{inputs[0]}.predictions", f"{inputs[0]}.dlq"), 1))
    setups = []
    for name in ("owner", "spare"):
        (folder := tmp_path / name).mkdir()
        setups.append(set_up(folder, kafka, inputs, {"kafka": {"group_protocol": protocol}}))
    owner, spare = setups
    group = f"group-{inputs[0]}"
    with running(spare):
        with running(owner):
            wait_ready(owner)
            wait_ready(spare)
            stays(lambda: (200, 200) == (ask(owner, "/readyz")[0], ask(spare, "/readyz")[0]), 2.0, "being ready")
        kafka.produce(inputs[0], [b'{"text": "t"}'])
        wait_until(lambda: kafka.committed_offsets(group, inputs[0]) == {0: 1}, 60)
        assert 200 == ask(spare, "/readyz")[0]
