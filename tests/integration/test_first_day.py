"""The page `docs/first-day.md`, followed word by word: only ports and folder are others."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from worker.kafka.embedded_storage import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "first-day.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [text for language, text in BLOCKS if language == "sh"]
STAYS = re.compile(r"# .*where it stays\n")
STEP_SECONDS = 900
TRIES = 3
HAS_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None


@dataclass(slots=True)
class Terminals:
    """Where the page's commands are typed, one after the other."""

    checkout: Path
    home: Path
    changes: dict[str, str]
    """What the page says -> what is typed in its place."""
    staying: list[subprocess.Popen[bytes]] = field(default_factory=list)
    left: list[str] = field(default_factory=lambda: list(COMMANDS))

    def stay(self, begins: str) -> None:
        """Start the next block, which has this in it and stays in its terminal."""
        command, log = self._next(begins, stays=True), self.log(len(self.staying)).open("wb")
        self.staying.append(
            subprocess.Popen(
                command, cwd=self._folder(), env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        )
        log.close()

    def step(self, begins: str, *expected: str) -> str:
        """What the next block printed, which has this in it, once it has ended well with all that is expected.

        It is typed once more where not: on a busy machine the first answer may not come in time.
        """
        command, printed = self._next(begins, stays=False), ""
        for _ in range(TRIES):
            done = subprocess.run(
                command,
                cwd=self._folder(),
                env=self._environment(),
                capture_output=True,
                timeout=STEP_SECONDS,
                check=False,
            )
            printed += (done.stdout + done.stderr).decode()
            if done.returncode == 0 and all(each in printed for each in expected):
                return printed
        raise AssertionError(printed)

    def log(self, number: int) -> Path:
        """Where the one that was started as this one, counted from 0, writes what it prints."""
        return self.home / f"terminal-{number}.log"

    def repeat(self, command: str) -> bool:
        """Whether one of the page's commands ends well when it is typed once more."""
        return 0 == subprocess.run(command.split(), cwd=self._folder(), env=self._environment(), check=False).returncode

    def close(self) -> None:
        """Ctrl-C in each, the last one first, and nothing is left of them."""
        for process in reversed(self.staying):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(300)
                wait_until(lambda: _is_gone(process.pid), 120)  # noqa: B023  called at once
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _next(self, begins: str, *, stays: bool) -> list[str]:
        block = self.left.pop(0)
        assert begins in block, f"the page goes on otherwise: {block}"
        assert stays == bool(STAYS.match(block))
        for old, new in self.changes.items():
            block = block.replace(old, new)
        return ["bash", "-euo", "pipefail", "-c", block]

    def _folder(self) -> Path:
        folder = self.home / "first-day"
        return folder if folder.is_dir() else self.checkout

    def _environment(self) -> dict[str, str]:
        """A shell in which the virtual environment is on, with nothing of this process's own configuration."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
        return {**kept, "PATH": path, "WORKER_HTTP__PORT": self.changes["8080"]}


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def terminals(kafka: BrokerUnderTest, tmp_path: Path) -> Iterator[Terminals]:
    """Whoever knows `kafka` can have a broker."""
    changes = {port: str(free_port()) for port in ("9092", "8080", "9091")}
    opened = Terminals(ROOT, tmp_path, {"~": str(tmp_path), **changes})
    try:
        yield opened
    finally:
        opened.close()


def shown(begins: str) -> list[str]:
    """The lines of the output that the page shows, up to where it leaves something out."""
    block = next(text for language, text in BLOCKS if language == "text" and text.startswith(begins))
    return [line.partition("…")[0] for line in block.splitlines()]


def without_score(line: str) -> str:
    """Another processor's last digits may differ."""
    return re.sub(r"\b0\.\d+", "0.…", line)


def test_the_first_day_leads_from_nothing_to_live_predictions_on_a_dashboard(terminals: Terminals) -> None:
    assert "uv sync" in terminals.left.pop(0), "what this test itself runs in"
    terminals.step("mkdir -p ~/first-day")
    terminals.stay("worker broker --secure")
    wait_until(lambda: b"is ready on" in terminals.log(0).read_bytes(), 240, "a broker that says that it is ready")
    terminals.step("worker init --kafka", "sasl_password_file", "- name: delivery")
    terminals.step("worker check ||", "not yet", "FAILED  tickets: the topic does not exist")
    terminals.step("worker check --create-topics", "tickets.predictions: created")
    terminals.step("somebody-elses", "as it should be", *shown("FAILED"))

    terminals.stay("worker run")
    terminals.step("readyz")
    read = terminals.step("python read.py 1")
    assert {without_score(line) for line in shown("bug")} <= {without_score(line) for line in read.splitlines()}

    if not HAS_PROMETHEUS:
        pytest.skip("prometheus and promtool are not installed: sections 7 to 9 were not walked")
    terminals.step("promtool check config", "SUCCESS")
    terminals.stay("prometheus --config.file")
    terminals.stay("python produce.py")
    wait_until(lambda: b"Server is ready" in terminals.log(2).read_bytes(), 120, "Prometheus")
    # Where a person would ask again in a minute.
    queries, panels = terminals.left[:2]
    assert "worker_predictions_delivered_total" in queries
    terminals.left[:2] = [panels]
    terminals.step("panels.py")
    wait_until(lambda: terminals.repeat("python panels.py"), 300, "data in every panel", look_seconds=5)
    terminals.left.insert(0, queries)
    answered = terminals.step("promtool query instant")
    assert re.search(r"^\{\} => [0-9.]+ @", answered, re.MULTILINE), answered
    assert 'reason="utf8_invalid"' in answered or 'reason="json_invalid"' in answered, answered

    terminals.step("name: thanks", "thanks")
    assert [] == terminals.left


def test_the_page_leaves_out_no_command() -> None:
    """A block in another language would not be run."""
    assert {"sh", "text"} == {language for language, _ in BLOCKS}
    assert PAGE.count("```") == 2 * len(BLOCKS)
