"""Which sets are held out together, so that each is tested by a model that did not see it."""

from worker.training.prepare import HeldOut
from worker.training.sets import SetTable


def folds_of_sets(table: SetTable, folds: int) -> tuple[HeldOut, ...]:
    """Every classification set in one fold; the sets of a cluster are spread, so that each fold trains on the rest."""
    by_cluster = [each.name for cluster in table.clusters() for each in table.classification if each.cluster == cluster]
    groups = [tuple(by_cluster[start::folds]) for start in range(folds)]
    return tuple(HeldOut(sets=group) for group in groups if group)


def folds_of_clusters(table: SetTable, folds: int) -> tuple[HeldOut, ...]:
    """Every cluster whole in one fold; folds hold about as many sets as each other."""
    sizes = {name: sum(each.cluster == name for each in table.classification) for name in table.clusters()}
    groups: list[list[str]] = [[] for _ in range(folds)]
    for name in sorted(sizes, key=lambda cluster: (-sizes[cluster], cluster)):
        min(groups, key=lambda group: sum(sizes[member] for member in group)).append(name)
    return tuple(HeldOut(clusters=tuple(group)) for group in groups if group)
