"""What needs more than the least rights: exactly what `docs/security.md` lists is enough, and one less is told."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from tests.support.broker import BrokerUnderTest
from tests.support.guarded import PASSWORD, USER, GuardedKafka, guarded_kafka
from tests.support.labelled import document
from tests.support.worker import Changes, Setup, run_to_end, set_up
from worker.cli.main import build_app
from worker.errors import WorkerError
from worker.kafka.rights import Right, forget_rules, worker_rights

pytestmark = pytest.mark.kafka

LABELS, STATUS, GROUP = "labels", "labels.status", "g"
REPLAYS = f"{GROUP}.dead-letters-replay"
OUTPUTS = ("in.predictions", "in.dlq")


DEAD_LETTER: dict[str, Any] = {
    "value": b"broken",
    "partition": 0,
    "headers": {
        "nli-error-code": b"json_invalid",
        "nli-error-stage": b"decode",
        "__connect.errors.topic": b"in",
        "__connect.errors.partition": b"0",
        "__connect.errors.offset": b"0",
    },
}


@pytest.fixture(scope="module")
def _module_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedKafka]:
    with guarded_kafka(tmp_path_factory.mktemp("guarded")) as broker:
        broker.open.create_topics(dict.fromkeys(["in", *OUTPUTS], 2))
        broker.open.create_topics(dict.fromkeys([LABELS, STATUS], 1), {"cleanup.policy": "compact"})
        yield broker


@pytest.fixture
def guarded(kafka: BrokerUnderTest, _module_guarded: GuardedKafka) -> GuardedKafka:
    """A broker on which the worker's user has no right at all; whoever knows `kafka` can have one."""
    return _module_guarded


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended in this process, and what it told."""

    code: int
    told: str


def command(setup: Setup, *arguments: str) -> Ran:
    before = structlog.get_config()
    try:
        result = CliRunner().invoke(build_app(), [*arguments, "-c", str(setup.path)])
    finally:
        structlog.configure(**before)
    error = result.exception
    assert error is None or isinstance(error, (SystemExit, WorkerError)), repr(error)
    return Ran(result.exit_code, f"{result.output}{error or ''}")


def check(setup: Setup) -> Ran:
    """What `worker check` says fails."""
    ran = command(setup, "check", "--json")
    findings = json.loads(ran.told.splitlines()[0])["findings"]
    return Ran(ran.code, "\n".join(f"{f['subject']}: {f['message']}" for f in findings if f["verdict"] == "failed"))


def runs(setup: Setup) -> Ran:
    """The check, and where that finds nothing the worker itself."""
    ran = check(setup)
    if ran.code == 0:
        run_to_end(setup)
    return ran


def apply(setup: Setup) -> Ran:
    """The next version, whichever that is."""
    counter = setup.path.with_name("versions")
    version = int(counter.read_text()) + 1 if counter.exists() else 1
    file = setup.path.with_name("kinds.json")
    file.write_text(json.dumps(document(version)))
    ran = command(setup, "schemas", "apply", str(file), "--yes")
    if ran.code == 0:
        counter.write_text(str(version))
    return ran


def listed(setup: Setup) -> Ran:
    return command(setup, "dead-letters", "list")


def rehearse(setup: Setup) -> Ran:
    return command(setup, "dead-letters", "replay")


def replay(setup: Setup) -> Ran:
    return command(setup, "dead-letters", "replay", "--yes", "--max-attempts", "100")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: what is done, and each right that it takes with what is told without it."""

    act: Callable[[Setup], Ran]
    rights: dict[Right, str]
    changes: Changes

    def set_up(self, folder: Path, guarded: GuardedKafka) -> Setup:
        return set_up(folder, guarded.open, ["in"], {"kafka": {"group_id": GROUP, **guarded.scram()}, **self.changes})


def topic(name: str, operation: str) -> Right:
    return Right("TOPIC", name, operation)


WITH_LABEL_TOPIC: dict[str, Any] = {"schemas": {"topic": LABELS}, "binding": {"label_schema": None}}
ROWS = {
    "the label topic": Row(
        runs,
        {
            **dict.fromkeys(worker_rights("in", GROUP), "grant"),
            topic(LABELS, "READ"): "labels",
            topic(STATUS, "WRITE"): "labels.status",
        },
        WITH_LABEL_TOPIC,
    ),
    "worker schemas apply": Row(
        apply,
        {
            topic(LABELS, "READ"): "labels",
            topic(LABELS, "WRITE"): "labels",
            topic(STATUS, "READ"): "labels.status",
            Right("TRANSACTIONAL_ID", f"{LABELS}.apply", "WRITE"): "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
            Right("GROUP", GROUP, "DESCRIBE"): "GROUP_AUTHORIZATION_FAILED",
        },
        WITH_LABEL_TOPIC,
    ),
    "worker dead-letters list": Row(listed, {topic("in.dlq", "READ"): "in.dlq may not be looked at"}, {}),
    "worker dead-letters replay": Row(
        rehearse,
        {
            topic("in.dlq", "READ"): "in.dlq",
            Right("GROUP", REPLAYS, "READ"): REPLAYS,
            topic("in", "DESCRIBE"): "in may not be looked at",
        },
        {},
    ),
    "worker dead-letters replay --yes": Row(
        replay,
        {
            topic("in.dlq", "READ"): "in.dlq",
            Right("GROUP", REPLAYS, "READ"): REPLAYS,
            topic("in", "WRITE"): "in may not be looked at",
            Right("TRANSACTIONAL_ID", REPLAYS, "WRITE"): REPLAYS,
        },
        {},
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_takes_the_rights_that_it_lists_and_says_which_is_missing(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    row = ROWS[name]
    monkeypatch.setenv("WORKER_KAFKA__SASL_PASSWORD", PASSWORD)
    setup = row.set_up(tmp_path, guarded)
    guarded.open.produce("in.dlq", [DEAD_LETTER] * (len(row.rights) + 1))
    guarded.allow(*row.rights)
    try:
        whole = row.act(setup)
        assert 0 == whole.code, whole.told
        for right, told in row.rights.items():
            guarded.revoke(right)
            ran = row.act(setup)
            guarded.allow(right)
            assert 1 <= ran.code <= 2, f"without {right}: {ran}"
            assert told in ran.told, f"without {right}: {ran}"
            assert "grant" in ran.told.lower(), f"without {right}: {ran}"
    finally:
        forget_rules(guarded.open.admin(), [right.rule(USER) for right in row.rights])
