"""Numbers out of repeated runs: medians, percentiles, and who runs after whom."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number the mean of the two in the middle."""
    return float(statistics.median(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def seconds_in_line(costs: Sequence[float], rate: float) -> list[float]:
    """How long each of some jobs takes with its waiting, in front of one server that does them in the order of arrival.

    They arrive evenly, `rate` a second, and keep the server busy for `costs` seconds each (Lindley 1952). With the
    costs of an engine by itself it is what a worker in front of it that takes no time would show.
    """
    found, waiting = [], 0.0
    for cost in costs:
        found.append(waiting + cost)
        waiting = max(0.0, waiting + cost - 1.0 / rate)
    return found


def alternating(names: Sequence[Name], rounds: int) -> Iterator[tuple[int, Name]]:
    """Every name once per round, with the round's number; each round starts with another name.

    What drifts on the machine while a bench runs then hits all of them alike.
    """
    for number in range(rounds):
        shift = number % max(1, len(names))
        for name in (*names[shift:], *names[:shift]):
            yield number, name


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of runs of the same round."""
    return median([a / b for a, b in zip(above, below, strict=True)])


def report_of(values: Mapping[str, object]) -> dict[str, object]:
    """`values` with every float in it, however deep, cut to four significant digits; None where it is not finite."""
    return {key: _rounded(value) for key, value in values.items()}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return report_of(value)
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
