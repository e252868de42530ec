"""The jars of Apache Kafka, pinned one by one, from the Maven cache or downloaded into it.

The list stands in `embedded_jars.txt`, so that no start has to walk the dependency graph (a minute of small requests)
and every machine runs the same bytes. `python -m worker.kafka.embedded_jars > worker/kafka/embedded_jars.txt` writes
it anew after a change of version.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from worker.errors import RetryableError

KAFKA_VERSION = "4.2.1"
_ENDPOINT = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    "+org.slf4j:slf4j-simple:1.7.36"
)
_LIST_NAME = "embedded_jars.txt"
_DOWNLOAD_THREADS = 8
_DOWNLOAD_TIMEOUT_SECONDS = 60

Progress = Callable[[str], None]


class BrokerUnavailableError(RetryableError):
    """No broker can be had on this machine for now; the message says what would help."""


@dataclass(frozen=True, slots=True)
class PinnedJar:
    """One jar of the class path: what it is called in a Maven repository and what has to be in it."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """The jar's name in a Maven repository."""
        return f"{self.artifact}-{self.version}.jar"


def pinned_jars() -> tuple[PinnedJar, ...]:
    """Every jar of the embedded Kafka, in the order of its class path."""
    text = resources.files("worker.kafka").joinpath(_LIST_NAME).read_text(encoding="utf-8")
    return tuple(pinned_jar(line) for line in text.splitlines() if line and not line.startswith("#"))


def pinned_jar(line: str) -> PinnedJar:
    """The jar of a line `group:artifact:version sha256`."""
    coordinate, sha256 = line.split()
    group, artifact, version = coordinate.split(":")
    return PinnedJar(group, artifact, version, sha256)


def default_cache_dir() -> Path:
    """Where what the embedded Kafka can make again is kept between runs: the user's cache folder."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nli-stream-worker" / "kafka"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nli-stream-worker" / "kafka"


def kafka_class_path(cache_dir: Path, progress: Progress) -> tuple[Path, ...]:
    """The jars on this machine, each with the bytes it was pinned with. Blocks while it downloads what is missing.

    Raises:
        BrokerUnavailableError: jars are missing and cannot be downloaded, or are not what was pinned.
    """
    jars = pinned_jars()
    with _locked(cache_dir / "jars.lock"):
        remembered = cache_dir / f"jars-{KAFKA_VERSION}.txt"
        paths = _remembered(remembered, jars)
        if paths is None:
            paths = _resolve_all(jars, progress)
            remembered.write_text("\n".join(map(str, paths)), encoding="utf-8")
    return paths


def _remembered(listing: Path, jars: tuple[PinnedJar, ...]) -> tuple[Path, ...] | None:
    """The paths of the last run where they still hold the pinned bytes, else None."""
    if not listing.exists():
        return None
    paths = tuple(map(Path, listing.read_text(encoding="utf-8").splitlines()))
    if len(paths) != len(jars) or not all(map(_holds, paths, jars)):
        return None
    return paths


def _holds(path: Path, jar: PinnedJar) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


def _resolve_all(jars: tuple[PinnedJar, ...], progress: Progress) -> tuple[Path, ...]:
    progress("resolving Kafka jars (54 MB, first time only)")
    with ThreadPoolExecutor(_DOWNLOAD_THREADS) as threads:
        futures = [threads.submit(resolved_jar, jar) for jar in jars]
        try:
            return tuple(future.result() for future in futures)
        except BrokerUnavailableError:
            threads.shutdown(cancel_futures=True)
            raise


def resolved_jar(jar: PinnedJar) -> Path:
    """Where `jar` is on this machine, with the bytes it was pinned with. Blocks while it is downloaded.

    Raises:
        BrokerUnavailableError: it cannot be had.
    """
    path = _fetch(jar)
    if not _holds(path, jar):
        path.unlink(missing_ok=True)  # most likely a download that was cut short: the cache would keep it for ever
        path = _fetch(jar)
    if not _holds(path, jar):
        raise BrokerUnavailableError(
            f"{jar.filename} is not the file that was pinned: check the Maven repository that jgo is configured with"
        )
    return path


def _fetch(jar: PinnedJar) -> Path:
    from jgo.config import GlobalSettings  # noqa: PLC0415  only the embedded broker needs it
    from jgo.maven import MavenContext  # noqa: PLC0415  only the embedded broker needs it

    settings = GlobalSettings.load()
    context = MavenContext(repo_cache=settings.repo_cache, timeout=_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        return Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
    except (OSError, RuntimeError) as error:  # what requests and jgo raise
        raise BrokerUnavailableError(
            f"cannot get {jar.filename} for the embedded Kafka ({type(error).__name__}): allow access to Maven Central "
            "once, or name a broker of your own, or use the mock broker"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` as a lock between processes: two first starts must not write the same jar. Blocks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise BrokerUnavailableError(
            f"{path.parent} cannot be written ({error.strerror}): name another folder with XDG_CACHE_HOME"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write_list() -> None:
    import jgo  # noqa: PLC0415  only the embedded broker needs it

    lines = [f"# Apache Kafka {KAFKA_VERSION} with its console tools: every jar on its class path, and its sha256."]
    lines.append("# Written by `python -m worker.kafka.embedded_jars`.")
    for artifact in jgo.resolve(_ENDPOINT):
        digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
        lines.append(f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    _write_list()
