"""What was polled and not yet admitted: a line for each topic, and who is next, so that no topic starves another.

Two places can be flooded. Our own lines: the next record comes from the topic that has had least (by tokens). And the
client's queue, where a flood lies before everything that was fetched after it: a topic that has unread records and has
had none of them for a while is favoured: the others are not read until it has, a moment at most. Pausing them throws
away what was fetched of them, so it is done for nothing less.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping, Sequence

from worker.clock import Clock
from worker.types import Record, TopicPartition

STARVES_SECONDS = 1.0
"""Unread records of a topic, and none of them polled for this long: it is favoured."""
FAVOUR_SECONDS = 1.0
"""How long topics are favoured at most."""
DISAPPOINTED_SECONDS = 10.0
"""When nothing came even so, the topic is not favoured again for this long; doubled each time in a row."""
MOST_DISAPPOINTED_SECONDS = 600.0
UNKNOWN_COST = 1.0
REMEMBERED_SHARE = 0.9
"""Of the cost of a topic's records so far; the rest is the latest one's."""


class Backlog:
    """Polled records by topic. The poll thread owns it; `note_cost` may be called from any one thread."""

    def __init__(self, clock: Clock) -> None:
        """Empty; times are read from `clock`."""
        self._clock = clock
        self._lines: defaultdict[str, deque[Record]] = defaultdict(deque)
        self._waiting: Counter[TopicPartition] = Counter()
        self._costs: dict[str, float] = {}
        self._had: dict[str, float] = {}
        self._charged: dict[str, float] = {}
        self._floor = 0.0
        self._hungry_since: dict[str, float] = {}
        self._favoured: frozenset[str] = frozenset()
        self._favoured_until = 0.0
        self._not_before: dict[str, float] = {}
        self._disappointments: Counter[str] = Counter()

    def __len__(self) -> int:
        """Records waiting."""
        return self._waiting.total()

    @property
    def favoured(self) -> frozenset[str]:
        """The topics that are read now to the exclusion of all others; empty when all are read."""
        return self._favoured

    def of(self, partition: TopicPartition) -> int:
        """Records of `partition` waiting."""
        return self._waiting[partition]

    def add(self, records: Sequence[Record]) -> None:
        """Put `records` at the ends of their topics' lines."""
        for record in records:
            line = self._lines[record.topic]
            if not line:  # who had nothing to offer for a while has no claim on what others took meanwhile
                self._had[record.topic] = max(self._had.get(record.topic, 0.0), self._floor)
            line.append(record)
        self._waiting.update([record.source for record in records])
        for topic in {record.topic for record in records}:
            self._hungry_since.pop(topic, None)
            self._disappointments.pop(topic, None)
            self._favoured -= {topic}

    def take(self, count: int) -> list[Record]:
        """The next `count` records, or all there are: each from the topic that has had least, in its topic's order."""
        self._charged = {}
        if len(open_lines := [topic for topic, line in self._lines.items() if line]) == 1:
            return self._take_of(open_lines[0], count)
        taken: list[Record] = []
        while len(taken) < count and self._waiting:
            topic = min((topic for topic, line in self._lines.items() if line), key=lambda name: self._had[name])
            record = self._lines[topic].popleft()
            self._floor = self._had[topic]
            cost = self._charged[topic] = self._cost_of(topic)
            self._had[topic] += cost
            self._uncount(record)
            taken.append(record)
        return taken

    def _take_of(self, topic: str, count: int) -> list[Record]:
        """The same where only one topic has anything to offer."""
        line = self._lines[topic]
        taken = [line.popleft() for _ in range(min(count, len(line)))]
        if taken:
            cost = self._charged[topic] = self._cost_of(topic)
            self._floor = self._had[topic] + cost * (len(taken) - 1)
            self._had[topic] = self._floor + cost
        self._waiting.subtract(Counter([record.source for record in taken]))
        self._waiting = +self._waiting
        return taken

    def put_back(self, records: Sequence[Record]) -> None:
        """Have the last of what was just taken wait at the fronts of their lines again, as if it had not been taken."""
        for record in reversed(records):
            self._lines[record.topic].appendleft(record)
            self._had[record.topic] -= self._charged[record.topic]
            self._floor = min(self._floor, self._had[record.topic])
        self._waiting.update([record.source for record in records])

    def note_cost(self, topic: str, tokens: int) -> None:
        """Say how many tokens a record of `topic` asked the engine for."""
        cost = max(UNKNOWN_COST, float(tokens))
        known = self._costs.get(topic, cost)
        self._costs[topic] = REMEMBERED_SHARE * known + (1 - REMEMBERED_SHARE) * cost

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what waits of `partitions`: they are no longer ours."""
        for topic in {partition.topic for partition in partitions}:
            line = self._lines.pop(topic, deque())
            kept = [record for record in line if record.source not in partitions]
            if kept:
                self._lines[topic].extend(kept)
            self._hungry_since.pop(topic, None)
            self._favoured -= {topic}
        for partition in partitions:
            self._waiting.pop(partition, None)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._lines.clear()
        self._waiting.clear()

    def look(self, unread: Mapping[TopicPartition, int]) -> None:
        """Judge by the unread records of each open partition whether a topic starves, and is to be favoured."""
        now = self._clock.monotonic()
        hungry = {partition.topic for partition, records in unread.items() if records > 0}
        hungry = {topic for topic in hungry if not self._lines.get(topic)}
        self._hungry_since = {topic: self._hungry_since.get(topic, now) for topic in hungry}
        self._favoured &= hungry
        if self._favoured and now >= self._favoured_until:
            self._disappoint(now)
        if not self._favoured and len({partition.topic for partition in unread}) > 1:
            self._favour(now)

    def is_held(self, topic: str, *, is_full: bool) -> bool:
        """Whether `topic` is not to be polled now; `is_full` says whether there is no room for more.

        A favoured topic gets its place in line even then: at most one poll of it waits here.
        """
        return topic not in self._favoured if self._favoured else is_full

    def _favour(self, now: float) -> None:
        self._favoured_until = now + FAVOUR_SECONDS
        self._favoured = frozenset(
            topic
            for topic, since in self._hungry_since.items()
            if now - since >= STARVES_SECONDS and now >= self._not_before.get(topic, now)
        )

    def _disappoint(self, now: float) -> None:
        for topic in self._favoured:
            wait = min(MOST_DISAPPOINTED_SECONDS, DISAPPOINTED_SECONDS * 2 ** self._disappointments[topic])
            self._not_before[topic] = now + wait
            self._disappointments[topic] += 1
        self._favoured = frozenset()

    def _cost_of(self, topic: str) -> float:
        known = self._costs.get(topic)
        if known is not None:
            return known
        costs = list(self._costs.values())
        return sum(costs) / len(costs) if costs else UNKNOWN_COST

    def _uncount(self, record: Record) -> None:
        left = self._waiting[record.source] - 1
        if left:
            self._waiting[record.source] = left
        else:
            del self._waiting[record.source]
