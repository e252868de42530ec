"""A real schema registry for tests: Apicurio Registry with its Confluent-compatible interface, from Maven."""

import hashlib
import os
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.wait import wait_until
from worker.kafka.embedded_jars import BrokerUnavailableError, default_cache_dir
from worker.kafka.embedded_java import kafka_java
from worker.kafka.embedded_storage import free_port

VERSION = "2.6.13.Final"
SHA256 = "3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba"
DOWNLOAD_SECONDS = 300
START_SECONDS = 120.0


class RegistryUnderTest:
    """One registry in a process of its own, with its schemas in memory: stopped and started again it knows none."""

    def __init__(self) -> None:
        self._runner = _runner()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its Confluent-compatible interface."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    @property
    def own_url(self) -> str:
        """The interface that Apicurio's own clients use."""
        return f"http://127.0.0.1:{self._port}/apis/registry/v2"

    def start(self) -> None:
        """Start it and wait until it answers."""
        flags = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "--sun-misc-unsafe-memory-access=allow"]
        settings = [f"-Dquarkus.http.port={self._port}", "-Dquarkus.http.host=127.0.0.1"]
        command = [str(kafka_java(lambda _: None).java), *flags, *settings, "-jar", str(self._runner)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, START_SECONDS, "the schema registry's answer")

    def pause(self) -> None:
        """Have it accept connections and answer none."""
        self._signal("STOP")

    def resume(self) -> None:
        """Have it answer again."""
        self._signal("CONT")

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _signal(self, name: str) -> None:
        assert self._process is not None
        subprocess.run(["kill", f"-{name}", str(self._process.pid)], check=True)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the schema registry has ended"
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as response:  # noqa: S310  our own address
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _runner() -> Path:
    """The unpacked program, from the cache or downloaded into it.

    Raises:
        BrokerUnavailableError: it cannot be had.
    """
    folder = default_cache_dir().parent / f"apicurio-registry-{VERSION}"
    runner = folder / f"apicurio-registry-app-{VERSION}-runner.jar"
    if not runner.exists():
        archive = _download()
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            archive.unlink()
            raise BrokerUnavailableError("the schema registry's archive is not the one that was pinned: try again")
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        with tarfile.open(archive) as packed:
            packed.extractall(partial, filter="data")
        partial.rename(folder)
    return runner


def _download() -> Path:
    from jgo.config import GlobalSettings  # noqa: PLC0415  only the first run needs it
    from jgo.maven import MavenContext  # noqa: PLC0415

    context = MavenContext(repo_cache=GlobalSettings.load().repo_cache, timeout=DOWNLOAD_SECONDS)
    component = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
    try:
        return Path(component.artifact(classifier="all", packaging="tar.gz").resolve())
    except (OSError, RuntimeError) as error:
        raise BrokerUnavailableError(f"the schema registry cannot be downloaded ({type(error).__name__})") from error
