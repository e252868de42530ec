"""The parent of several worker processes: starts them, restarts them, speaks for them on the HTTP port, ends them."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from worker.clock import Clock, SystemClock
from worker.config import Config
from worker.errors import ConfigError, FatalError
from worker.fleet import STARTING, Report, Restarts, Share, merged_metrics, reasons_of, schemas_of
from worker.kafka.embedded_storage import free_port
from worker.lifecycle import Lifecycle
from worker.observability.health import Heartbeats, Probes
from worker.observability.health_server import HealthServer
from worker.types import JsonValue

_LOOK_SECONDS: Final = 0.2
_ASK_SECONDS: Final = 1.0
"""How often every process is asked how it is."""
_ANSWER_SECONDS: Final = 2.0
_GRACE_SECONDS: Final = 15.0
"""Beyond the drain that the configuration allows."""
_LIVENESS_SECONDS: Final = 60.0
_USAGE: Final = 2
_INTERRUPTED: Final = 130
_LOCAL: Final = "127.0.0.1"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Child:
    """One process of the fleet, now or between two lives."""

    share: Share
    process: "subprocess.Popen[bytes] | None" = None
    port: int = 0
    started_seconds: float = 0.0
    due_seconds: float = 0.0
    """When it is to be started; in the past: at once."""
    is_done: bool = False
    """It ended by itself with nothing left to do."""
    report: Report = field(default=STARTING)


class Supervisor:
    """Runs the fleet; `run` is the main thread's."""

    def __init__(self, config: Config, command: Sequence[str], shares: Sequence[Share], lifecycle: Lifecycle) -> None:
        """`command` is what every process runs; what tells them apart comes by environment."""
        self._config = config
        self._command = list(command)
        self._lifecycle = lifecycle
        self._clock: Clock = SystemClock()
        self._restarts = Restarts()
        self._restarted = 0
        self._children = [Child(share) for share in shares]
        self._heartbeats = Heartbeats(self._clock)

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run, by name."""
        return {c.share.name: c.process.pid for c in self._children if c.process is not None}

    def run(self) -> None:
        """Keep the fleet running until it is told to stop, or all have nothing left to do. Blocks.

        Raises:
            ConfigError: a process cannot use the configuration.
            FatalError: processes die again and again, or do not end in time.
        """
        probes = Probes(self._heartbeats.ages, self._reasons, self._metrics, self._schemas)
        self._heartbeats.register("supervisor", _LIVENESS_SECONDS)
        with HealthServer(probes, self._config.http.host, self._config.http.port):
            asking = self._lifecycle.thread(self._keep_asking, "fleet")
            asking.start()
            try:
                while not self._lifecycle.is_stopping and not all(child.is_done for child in self._children):
                    self._heartbeats.beat("supervisor")
                    for child in self._children:
                        self._look_after(child)
                    self._lifecycle.wait_for_stop(_LOOK_SECONDS)
            finally:
                self._lifecycle.stop()
                is_unfinished = self._end()
                asking.join(_GRACE_SECONDS)
        if self._lifecycle.failure is not None:
            raise FatalError("the thread that asks the processes ended")
        if is_unfinished:
            raise FatalError("a process did not end in time and was killed; nothing unfinished was committed")

    def leave(self) -> None:
        """End everything at once, ourselves too; what was not committed is read again."""
        for child in self._children:
            if child.process is not None:
                child.process.kill()
        os._exit(_INTERRUPTED)

    def _look_after(self, child: Child) -> None:
        if child.is_done:
            return
        now = self._clock.monotonic()
        if child.process is None:
            if now >= child.due_seconds:
                self._start(child, now)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process, child.report = None, Report((f"it ended with code {code}",))
        if code == 0:
            child.is_done, child.report = True, Report(())
            return
        if code == _USAGE:
            raise ConfigError("a process cannot use the configuration; its own line above says why")
        delay = self._restarts.died(child.share.number, now, now - child.started_seconds)
        log.error("process.died", process=child.share.name, code=code, restart_seconds=delay)
        if self._restarts.is_hopeless(now):
            raise FatalError("processes died five times within a minute; their own lines above say why")
        child.due_seconds = now + delay
        self._restarted += 1

    def _start(self, child: Child, now: float) -> None:
        child.port, child.started_seconds, child.report = free_port(), now, STARTING
        # In a session of its own: Ctrl-C reaches us alone. The pipe ends when we do, however we end.
        child.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            env=child_environment(self._config, child.share, child.port),
            start_new_session=True,
        )
        log.info("process.started", process=child.share.name, threads=child.share.threads)

    def _end(self) -> bool:
        """Have all of them drain and wait for it; whether one had to be killed."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = self._clock.monotonic() + self._config.drain_seconds + _GRACE_SECONDS
        was_killed = False
        for process in running:
            try:
                process.wait(max(0.0, deadline - self._clock.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                was_killed = True
        return was_killed

    # The thread that asks.

    def _keep_asking(self) -> None:
        while not self._lifecycle.wait_for_stop(_ASK_SECONDS):
            for child in self._children:
                process, port = child.process, child.port
                if process is None or process.poll() is not None:
                    continue
                report = ask(port)
                if report is not None and child.process is process:
                    child.report = report

    # What the HTTP port answers.

    def _reports(self) -> dict[str, Report]:
        return {child.share.name: child.report for child in self._children}

    def _reasons(self) -> tuple[str, ...]:
        return reasons_of(self._reports())

    def _metrics(self) -> bytes:
        return merged_metrics(self._reports(), self._restarted)

    def _schemas(self) -> JsonValue:
        return schemas_of(self._reports())


def child_command(config_file: Path, options: Sequence[str]) -> list[str]:
    """The command of one process."""
    return [sys.executable, "-m", "worker", "run", "-c", str(config_file), "--until-parent-ends", *options]


def child_environment(config: Config, share: Share, port: int) -> dict[str, str]:
    """Our environment with what is this process's alone."""
    own = {
        "WORKER_HTTP__HOST": _LOCAL,
        "WORKER_HTTP__PORT": str(port),
        "WORKER_THREADS": str(share.threads),
    }
    if config.kafka.instance_id is not None:
        own["WORKER_KAFKA__INSTANCE_ID"] = share.instance(config.kafka.instance_id)
    if share.gpu is not None:
        own["CUDA_VISIBLE_DEVICES"] = share.gpu
    return {**os.environ, **own}


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in {"", "-1"}]
    numbers = sorted(int(path.name.removeprefix("nvidia")) for path in devices.glob("nvidia[0-9]*"))
    return [str(number) for number in numbers]


def ask(port: int) -> Report | None:
    """What a process says of itself on its own port; None while it does not answer."""
    ready, metrics, schemas = (_get(port, path) for path in ("/readyz", "/metrics", "/schemas"))
    if ready is None or metrics is None or schemas is None:
        return None
    reasons = tuple(str(reason) for reason in json.loads(ready)["reasons"])
    return Report(reasons, metrics.decode(), json.loads(schemas))


def _get(port: int, path: str) -> bytes | None:
    url = f"http://{_LOCAL}:{port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as refusal:
        return refusal.read()
    except OSError:
        return None


def end_with_parent(lifecycle: Lifecycle) -> None:
    """Have `lifecycle` stop when our standard input ends: whoever holds its other end is gone then."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        lifecycle.stop()

    threading.Thread(target=watch, name="parent", daemon=True).start()
