"""Which binding a topic has: by its name, else by the first pattern that matches it; none where we write ourselves."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from worker.messages.binding import TOPIC_FIELD, Binding

_INTERNAL = "__"
"""How the names of Kafka's own topics begin: no pattern matches them."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    binding: Binding
    names: re.Pattern[str]
    written: tuple[re.Pattern[str], ...]
    """What topics that are written for a match are called; the group `topic` is the match."""


@dataclass(slots=True)
class Bindings:
    """The bindings of a configuration, by topic. A topic that this configuration writes has none."""

    configured: tuple[Binding, ...]
    reserved: frozenset[str] = frozenset()
    """Further topics that are written: those of label schemas."""
    _by_name: dict[str, Binding] = field(init=False, repr=False)
    _patterns: tuple[_Pattern, ...] = field(init=False, repr=False)
    _fixed: frozenset[str] = field(init=False, repr=False)
    _found: dict[str, Binding | None] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._by_name = {binding.input: binding for binding in self.configured if not binding.is_pattern}
        self._patterns = tuple(_compiled(binding) for binding in self.configured if binding.is_pattern)
        routes = (topic for binding in self.configured for topic in binding.routes.values())
        named = (topic for binding in self._by_name.values() for topic in binding.topics_written)
        self._fixed = frozenset((*self.reserved, *routes, *named))

    def __getitem__(self, topic: str) -> Binding:
        """The binding of `topic`, with its own name for input.

        Raises:
            KeyError: it has none.
        """
        binding = self.find(topic)
        if binding is None:
            raise KeyError(topic)
        return binding

    @property
    def named(self) -> tuple[str, ...]:
        """The inputs that are configured by name."""
        return tuple(self._by_name)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The inputs that are configured as patterns."""
        return tuple(pattern.binding.input for pattern in self._patterns)

    def find(self, topic: str) -> Binding | None:
        """The binding of `topic`, with its own name for input; None where it has none."""
        if topic not in self._found:  # asked for every record: a topic is looked at once
            self._found[topic] = self._resolve(topic)
        return self._found[topic]

    def inputs(self, existing: Iterable[str]) -> frozenset[str]:
        """What is to be read where the topics `existing` are there: named inputs, and what a pattern matches."""
        return frozenset((*self._by_name, *(topic for topic in existing if self.find(topic) is not None)))

    def present(self, existing: Iterable[str]) -> tuple[Binding, ...]:
        """The bindings of all `inputs`, each with its topic's own name."""
        return tuple(self[topic] for topic in sorted(self.inputs(existing)))

    def outputs(self, existing: Collection[str]) -> dict[str, frozenset[str]]:
        """Input topic -> the topics that its records may go to, for all `inputs`."""
        return {binding.input: frozenset(binding.topics_written) for binding in self.present(existing)}

    def matches(self, pattern: str, existing: Iterable[str]) -> list[str]:
        """Which of the topics `existing` the binding of `pattern` reads."""
        theirs = next(each.binding for each in self._patterns if each.binding.input == pattern)
        return sorted(t for t in existing if t not in self._by_name and self.find(t) == theirs.of(t))

    def rivals(self, topic: str) -> tuple[str, ...]:
        """Every pattern that matches `topic`, where there are several; the first has it."""
        found = tuple(each.binding.input for each in self._patterns if each.names.match(topic))
        return found if len(found) > 1 and topic not in self._by_name else ()

    def is_written(self, topic: str) -> bool:
        """Whether records may go to `topic`, for one of the inputs or for a topic that a pattern would match."""
        if topic in self._fixed:
            return True
        return any(self._is_written_by(pattern, topic) for pattern in self._patterns)

    def writers(self, topic: str) -> Iterator[Binding]:
        """The patterns' bindings that would write `topic`."""
        for pattern in self._patterns:
            if self._is_written_by(pattern, topic):
                yield pattern.binding

    def _resolve(self, topic: str) -> Binding | None:
        if topic in self._by_name:
            return self._by_name[topic]
        pattern = self._pattern_of(topic)
        return None if pattern is None or self.is_written(topic) else pattern.binding.of(topic)

    def _pattern_of(self, topic: str) -> _Pattern | None:
        if topic.startswith(_INTERNAL) or topic in self._by_name:
            return None
        return next((pattern for pattern in self._patterns if pattern.names.match(topic)), None)

    def _is_written_by(self, pattern: _Pattern, topic: str) -> bool:
        # Whether that topic is there does not matter: it may come while the worker runs.
        sources = (found["topic"] for name in pattern.written if (found := name.fullmatch(topic)) is not None)
        return any(self._pattern_of(source) is pattern for source in sources)


def _compiled(binding: Binding) -> _Pattern:
    templates = (binding.output, binding.dead_letter)
    return _Pattern(binding, re.compile(binding.input), tuple(_names_of(template) for template in templates))


def _names_of(template: str) -> re.Pattern[str]:
    head, *rest = (re.escape(part) for part in template.split(TOPIC_FIELD))
    again = "(?P=topic)".join(rest)
    return re.compile(f"{head}(?P<topic>.+){again}")
