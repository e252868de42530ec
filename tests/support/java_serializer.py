"""Tickets as serializers of Java write them: those of Apicurio Registry, told to write as Confluent's do.

Confluent's own are not on Maven Central. The program is `WriteTickets.java`; the Java of the embedded Kafka has no
compiler, so Eclipse's is taken along.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.schema_registry import RegistryUnderTest
from worker.kafka.embedded_jars import pinned_jar, resolved_jar
from worker.kafka.embedded_java import kafka_java

SECONDS = 300.0
_PROGRAM = Path(__file__).with_name("WriteTickets.java")
_JARS = Path(__file__).with_name("java_serializer_jars.txt")
"""With their digests. What the embedded Kafka has as well is left out: Kafka's clients, Jackson, SLF4J."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to write: a topic, and the registry of its schemas."""

    bootstrap_servers: str
    registry: RegistryUnderTest
    topic: str


class JavaSerializer:
    """The program, compiled."""

    def __init__(self, classes: Path) -> None:
        """Compile it into the folder `classes`. Blocks.

        Raises:
            BrokerUnavailableError: Java or a jar cannot be had.
        """
        java = kafka_java()
        jars = [resolved_jar(pinned_jar(line)) for line in _JARS.read_text(encoding="utf-8").splitlines()]
        self._java = [str(java.java), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self._class_path = os.pathsep.join(map(str, (classes, *jars, *java.class_path)))
        options = ["-source", "21", "-target", "21", "-proc:none", "-cp", self._class_path, "-d", str(classes)]
        self._run("org.eclipse.jdt.internal.compiler.batch.Main", *options, str(_PROGRAM))

    def write(self, place: Place, kind: str, bodies: Sequence[str], *settings: str) -> None:
        """Write a ticket for each of `bodies`, numbered from 1, in the format `kind`. Blocks.

        `settings` are more of the serializer's own, `name=value`.
        """
        where = (place.bootstrap_servers, place.registry.own_url, place.topic)
        self._run("WriteTickets", kind, ",".join(settings), *where, *bodies)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._java, "-cp", self._class_path, program, *arguments]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        assert 0 == done.returncode, (done.stdout + done.stderr).decode(errors="replace")[-3000:]
