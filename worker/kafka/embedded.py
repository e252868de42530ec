"""A real Apache Kafka, one node, started from Python packages alone: for the demo, the tests and trying things out."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # where it is defined: `admin` does not export it to type checkers

from worker.clock import Clock, SystemClock
from worker.errors import ConfigError
from worker.kafka.embedded_jars import BrokerUnavailableError, Progress
from worker.kafka.embedded_java import KafkaJava, kafka_java
from worker.kafka.embedded_storage import (
    HOST,
    EmbeddedSettings,
    choose_ports,
    format_storage,
    stored_cluster_id,
    write_properties,
)

_START_SECONDS = 90.0
_STOP_SECONDS = 20.0
_RECORDING_STOP_SECONDS = 90.0
_POLL_SECONDS = 0.05
_REQUEST_SECONDS = 10.0
_PORT_ATTEMPTS = 3
_LAST_LOG_LINES = 8

# Outlives this process by a moment: its standard input ends when we do, however we end.
_WATCHER = 'read -r _; kill -KILL "$1" 2>/dev/null; if [ -n "$2" ]; then sleep 1; rm -rf "$2"; fi'


class EmbeddedKafka:
    """One Kafka node of our own, in a process of its own. A context manager: started on entry, closed on exit."""

    def __init__(
        self,
        settings: EmbeddedSettings | None = None,
        *,
        progress: Progress = lambda _message: None,
        java: KafkaJava | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`progress` is called with a line for people before what takes long; `java` saves looking it up again."""
        self._settings = settings or EmbeddedSettings()
        self._progress = progress
        self._java = java
        self._clock = clock or SystemClock()
        self._home: Path | None = None
        self._ports: dict[str, int] = {}
        self._cluster_id = ""
        self._server: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._recording: Path | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it: `host:port`."""
        return f"{HOST}:{self._ports[self._settings.listeners.clients]}"

    @property
    def cluster_id(self) -> str:
        """What the broker calls its cluster; a stranger on the same port would say another."""
        return self._cluster_id

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self._server is not None and self._server.poll() is None

    def listener_port(self, name: str) -> int:
        """The port of one of `EmbeddedSettings.extra_listeners`."""
        return self._ports[name]

    def start(self) -> None:
        """Start it, or start it again on the same ports with the records it had. Blocks until it answers.

        Raises:
            BrokerUnavailableError: there is no Java or no jars, or the broker ended or did not answer in time.
        """
        if self.is_running:
            return
        first = not self._ports
        for attempt in range(_PORT_ATTEMPTS):
            self.launch()
            try:
                self.await_ready()
            except BrokerUnavailableError:
                self.kill()
                if not first or attempt + 1 == _PORT_ATTEMPTS or not self._lost_its_port():
                    raise
                self._ports = {}
            else:
                return

    def launch(self) -> None:
        """Start its process, on the ports it had if it had some. Blocks while Java or jars are fetched.

        Raises:
            BrokerUnavailableError: there is no Java or no jars.
        """
        if self._java is None:
            self._java = kafka_java(self._progress)
        home, settings = self._prepare_home(), self._settings
        if not self._ports:
            self._ports = dict(settings.place.ports) or choose_ports(settings)
            write_properties(home / "server.properties", self._data_dir(), self._ports, settings)
        stored = stored_cluster_id(self._data_dir())
        self._cluster_id = stored or format_storage(self._java, home / "server.properties", self._data_dir(), settings)
        self._launch(self._java, home)

    def await_ready(self) -> None:
        """Block until it answers as a member of its cluster.

        Raises:
            BrokerUnavailableError: it ended, or does not answer in time.
        """
        deadline = self._clock.monotonic() + _START_SECONDS
        while not self._answers():
            if self.wait(_POLL_SECONDS):
                raise BrokerUnavailableError(f"the embedded Kafka ended while starting: {' / '.join(self.log_tail())}")
            if self._clock.monotonic() > deadline:
                raise BrokerUnavailableError(f"the embedded Kafka did not answer within {_START_SECONDS:.0f} s")

    def admin(self) -> AdminClient:
        """A client of its owner's, who may do everything."""
        servers = f"{HOST}:{self._ports[self._settings.listeners.brokers]}"
        # Log level 0: while it starts or is killed, refused connections are no news.
        return AdminClient({**self._settings.owner, "bootstrap.servers": servers, "log_level": 0})

    def create_topics(self, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create topics, name -> number of partitions, and wait until every partition has a leader. Blocks.

        Raises:
            BrokerUnavailableError: the broker refused or did not answer.
        """
        admin = self.admin()
        wanted = [NewTopic(name, partitions, config=dict(config or {})) for name, partitions in topics.items()]
        try:
            for future in admin.create_topics(wanted, request_timeout=_REQUEST_SECONDS).values():
                future.result()
            deadline = self._clock.monotonic() + _REQUEST_SECONDS
            while not _all_led(admin, topics):
                if self._clock.monotonic() > deadline:
                    raise BrokerUnavailableError("the new topics have no leader yet")
        except KafkaException as error:
            raise BrokerUnavailableError(f"topics cannot be created: {error.args[0].name()}") from error

    def run_tool(
        self, class_name: str, arguments: Sequence[str], stdin: bytes = b"", timeout_seconds: float = 120.0
    ) -> subprocess.CompletedProcess[bytes]:
        """What one of Kafka's own console tools answered, whatever its exit code. Blocks."""
        if self._java is None:
            self._java = kafka_java(self._progress)
        return self._java.run_tool(class_name, arguments, stdin, timeout_seconds)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether its process ended within `timeout_seconds`. Blocks until then."""
        return self._server is None or _ended(self._server, timeout_seconds)

    def kill(self) -> None:
        """End it at once, as a power cut would; records stay for the next `start`."""
        self._end_watcher()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None
        self._drop_recording()

    def close(self) -> None:
        """Stop it in order, by force if that takes too long, and remove the folder it was given. May be repeated."""
        server = self._server
        if server is not None:
            server.terminate()
            if self._recording is not None:
                self._progress("keeping Kafka's classes for a faster start (first time only)")
            _ended(server, _STOP_SECONDS if self._recording is None else _RECORDING_STOP_SECONDS)
            if self._java is not None and self._recording is not None and self._recording.exists():
                self._recording.replace(self._java.archive)
        self.kill()
        if self._home is not None and self._settings.data_dir is None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home, self._ports = None, {}
        atexit.unregister(self.close)

    def log_tail(self, lines: int = _LAST_LOG_LINES) -> list[str]:
        """The last lines that the broker logged, without stack frames: its own words, no record is quoted in them."""
        if self._home is None or not (self._home / "server.log").exists():
            return []
        logged = (self._home / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in logged if not line.startswith("\tat ")][-lines:]

    def _prepare_home(self) -> Path:
        if self._home is None:
            self._home = (self._settings.data_dir or Path(tempfile.mkdtemp(prefix="embedded-kafka-"))).absolute()
            try:
                self._home.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{self._home} cannot hold the broker's data: {error.strerror}") from error
        return self._home

    def _data_dir(self) -> Path:
        return self._prepare_home() / "records"

    def _launch(self, java: KafkaJava, home: Path) -> None:
        if not java.archive.exists():
            self._recording = java.archive.with_suffix(f".{home.name}-{os.getpid()}")
        command = java.server_command(home / "server.properties", self._recording)
        atexit.register(self.close)
        with (home / "server.log").open("wb") as log:
            # A session of its own: Ctrl-C in a terminal reaches us alone, and we stop it in order.
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=home,
                start_new_session=True,
            )
        doomed = "" if self._settings.data_dir else str(home)
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHER, "sh", str(self._server.pid), doomed],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self._ports[self._settings.listeners.brokers]), timeout=1).close()
        except OSError:
            return False
        try:
            found = self.admin().list_topics(timeout=1)
        except KafkaException:
            return False
        if found.cluster_id != self._cluster_id:
            raise BrokerUnavailableError(f"another Kafka answers on {self.bootstrap_servers}: choose another port")
        return self._settings.place.node_id in found.brokers

    def _lost_its_port(self) -> bool:
        return self._settings.port is None and any("BindException" in line for line in self.log_tail(200))

    def _end_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None

    def _drop_recording(self) -> None:
        if self._recording is not None:
            self._recording.unlink(missing_ok=True)
            self._recording = None


def _ended(process: subprocess.Popen[bytes], timeout_seconds: float) -> bool:
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _all_led(admin: AdminClient, topics: Mapping[str, int]) -> bool:
    found = admin.list_topics(timeout=_REQUEST_SECONDS).topics
    return all(
        name in found
        and len(found[name].partitions) == partitions
        and all(partition.leader != -1 for partition in found[name].partitions.values())
        for name, partitions in topics.items()
    )
