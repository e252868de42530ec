"""How many pairs each data set gives to a stage of training: in proportion to its size, up to a rate maximum."""

from collections.abc import Mapping


def mixing_counts(sizes: Mapping[str, int], total: int | None, rate_max: int | None) -> dict[str, int]:
    """Pairs to take of each set.

    A set counts with its size, but with `rate_max` at most (examples-proportional mixing: Wei et al. 2022, section 2.4;
    Raffel et al. 2020). With `total` the counts sum to it, and a set may have to give more pairs than it has; without,
    each set gives what it counts with.
    """
    rates = {name: min(size, rate_max) if rate_max is not None else size for name, size in sizes.items() if size > 0}
    if total is None or not rates:
        return rates
    exact = {name: total * rate / sum(rates.values()) for name, rate in rates.items()}
    counts = {name: int(share) for name, share in exact.items()}
    # What rounding down left over goes to the largest remainders, ties to the first name.
    order = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def shared_counts(
    groups: Mapping[str, Mapping[str, int]], total: int | None, shares: Mapping[str, float | None], rate_max: int | None
) -> dict[str, int]:
    """As `mixing_counts` over all groups, where a group with a share gets that share of `total`."""
    together = {name: size for sizes in groups.values() for name, size in sizes.items()}
    fixed = {group: share for group, share in shares.items() if share is not None and group in groups}
    if total is None or not fixed:
        return mixing_counts(together, total, rate_max)
    counts: dict[str, int] = {}
    for group, share in fixed.items():
        counts |= mixing_counts(groups[group], round(total * share), rate_max)
    rest = {name: size for group, sizes in groups.items() if group not in fixed for name, size in sizes.items()}
    return counts | mixing_counts(rest, max(0, total - sum(counts.values())), rate_max)
