"""Tickets as a serializer of Java writes them: that of Apicurio Registry, told to write as Confluent's do.

Confluent's own are not on Maven Central. The program is `WriteTickets.java`; the Java of the embedded Kafka has no
compiler, so Eclipse's is taken along.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.schema_registry import RegistryUnderTest
from worker.kafka.embedded_jars import pinned_jar, resolved_jar
from worker.kafka.embedded_java import kafka_java

SECONDS = 300.0
_PROGRAM = Path(__file__).with_name("WriteTickets.java")
_JARS = Path(__file__).with_name("java_serializer_jars.txt")
"""With their digests. What the embedded Kafka has as well is left out: Kafka's clients, Jackson, SLF4J."""


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

    def write(self, bootstrap_servers: str, registry: RegistryUnderTest, topic: str, bodies: Sequence[str]) -> None:
        """Write a ticket for each of `bodies` to `topic`, numbered from 1. Blocks."""
        self._run("WriteTickets", bootstrap_servers, registry.own_url, topic, *bodies)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._java, "-cp", self._class_path, program, *arguments]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        assert 0 == done.returncode, (done.stdout + done.stderr).decode(errors="replace")[-3000:]
