"""The other contestants: programs in environments of their own, told what to do line by line."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.errors import ConfigError, FatalError

START_SECONDS: Final = 900.0
"""An environment may have to be downloaded first."""
ANSWER_SECONDS: Final = 600.0
_LEAVE_SECONDS: Final = 30.0
_PEERS: Final = Path(__file__).parents[2] / "benchmarks" / "peers"


@dataclass(frozen=True, slots=True)
class Script:
    """A contestant's program and what it needs installed."""

    file: str
    needs: tuple[str, ...]


TRANSFORMERS_LOOP: Final = Script("transformers_loop.py", ("torch", "transformers", "confluent-kafka"))
QUIX: Final = Script("quix.py", ("quixstreams", "torch", "transformers"))
FAUST: Final = Script("faust_agent.py", ("faust-streaming", "torch", "transformers"))
GLICLASS: Final = Script("gliclass_pipeline.py", ("gliclass", "torch", "transformers"))


class Peer:
    """A contestant that runs."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.name = name
        self.versions: Mapping[str, str] = {}
        self._process = process
        self._log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name=f"peer-{name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def tell(self, values: Mapping[str, object]) -> None:
        """Send one line.

        Raises:
            FatalError: nobody reads it.
        """
        try:
            assert self._process.stdin is not None  # noqa: S101  it was opened as a pipe
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise FatalError(self._ending()) from None

    def expect(self, event: str, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The next line, which has to tell of `event`. Blocks.

        Raises:
            FatalError: it does not, or not in time, or the program ended.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise FatalError(f"{self.name} was silent for {seconds:.0f} s") from None
        if line is None:
            raise FatalError(self._ending())
        found = dict(json.loads(line))
        if found.get("event") != event:
            raise FatalError(f"{self.name} told of something else than {event!r}")
        return found

    def check(self) -> None:
        """Nothing while it runs.

        Raises:
            FatalError: it ended.
        """
        if self._process.poll() is not None:
            raise FatalError(self._ending())

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  it was opened as a pipe
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print too
                self._lines.put(line)
        self._lines.put(None)

    def _ending(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{self.name} ended: {lines[-1] if lines else 'it said nothing'}"


@contextmanager
def running_peer(name: str, script: Script, settings: Mapping[str, object], home: Path) -> Iterator[Peer]:
    """A contestant that has loaded everything and waits for runs; `home` takes its log.

    Raises:
        ConfigError: uv or the program is not there.
        FatalError: it does not start.
    """
    log = home / f"{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            peer_command(script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "PYTHONWARNINGS": "ignore"},
        )
    peer = Peer(name, process, log)
    try:
        peer.tell(settings)
        peer.versions = peer.expect("ready", START_SECONDS)["versions"]
        yield peer
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def peer_command(script: Script, arguments: Sequence[str] = ()) -> list[str]:
    """How a program is run in an environment with what it needs, and nothing of ours.

    Raises:
        ConfigError: uv or the program is not there.
    """
    uv = shutil.which("uv") or shutil.which(str(Path.home() / ".uv" / "bin" / "uv"))
    if uv is None:
        raise ConfigError("`worker bench compare` runs every contestant in an environment of its own: install uv")
    program = _PEERS / script.file
    if not program.is_file():
        raise ConfigError("`worker bench compare` needs the folder benchmarks of the source tree: run it in a checkout")
    packages = [argument for package in script.needs for argument in ("--with", package)]
    return [uv, "run", "--quiet", "--no-project", *packages, "python", str(program), *arguments]
