"""Who takes part in `worker bench compare`, and how one run of each is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from worker.bench.arena import PREDICTIONS, Arena, Route, Run
from worker.bench.machine import watched
from worker.bench.peers import Peer
from worker.bench.subject import Subject

WARM_UP_MESSAGES: Final = 4
"""Sent ahead of every run, and waited for: what joins a group or compiles late has done it by then."""

Load = Callable[[Callable[[], None]], Run]


class Contestant(Protocol):
    """Who classifies what comes in."""

    @property
    def name(self) -> str:
        """For the report."""
        ...

    def run(self, texts: tuple[str, ...], rate: float | None) -> Run:
        """Everything at once, or at `rate` messages a second. Blocks."""
        ...


@dataclass(slots=True)
class Results:
    """All runs of one contestant."""

    saturated: list[Run] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_rss_mib: list[float] = field(default_factory=list)
    paced: Run | None = None
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerContestant:
    """This worker."""

    name: str
    arena: Arena
    route: Route
    subject: Subject

    @property
    def pid(self) -> int:
        """The process that does the work."""
        return self.subject.pid

    def run(self, texts: tuple[str, ...], rate: float | None) -> Run:
        """Everything at once, or at `rate` messages a second. Blocks."""
        check = self.subject.check
        self.arena.saturate(self.route, warm_up(texts), check)
        if rate is None:
            return self.arena.saturate(self.route, texts, check)
        return self.arena.pace(self.route, texts, rate, check)


@dataclass(slots=True)
class PeerContestant:
    """A program of its own, in one of its ways to work."""

    name: str
    arena: Arena
    peer: Peer
    ways: Mapping[str, object]
    """`dtype` and `batch`."""
    _runs: int = 0

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self.peer.pid

    def run(self, texts: tuple[str, ...], rate: float | None) -> Run:
        """Everything at once, or at `rate` messages a second, on topics of its own. Blocks."""
        self._runs += 1
        topic = f"{self.name}-{self._runs}"
        route = Route((topic,))
        self.arena.add(route)
        count = len(texts) + len(warm_up(texts))
        self.peer.tell(
            {"input": topic, "output": f"{topic}{PREDICTIONS}", "group": topic, "messages": count, **self.ways}
        )
        self.peer.expect("started")
        self.arena.saturate(route, warm_up(texts), self.peer.check)
        if rate is None:
            run = self.arena.saturate(route, texts, self.peer.check)
        else:
            run = self.arena.pace(route, texts, rate, self.peer.check)
        self.peer.expect("done")
        self.arena.drop(route)
        return run


def warm_up(texts: tuple[str, ...]) -> tuple[str, ...]:
    """What is sent ahead: texts of the same kind, none of them one of the run's."""
    return tuple(f"- {text}" for text in texts[:WARM_UP_MESSAGES])


def saturate(contestant: WorkerContestant | PeerContestant, texts: tuple[str, ...], results: Results) -> None:
    """One run at saturation, noted in `results`."""
    with watched(contestant.pid) as usage:
        run = contestant.run(texts, None)
    results.saturated.append(run)
    results.cpu_seconds.append(usage.cpu_seconds)
    results.peak_rss_mib.append(usage.peak_rss_mib or 0.0)
