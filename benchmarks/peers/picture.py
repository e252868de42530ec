"""Draws the report of a comparison, which comes in on standard input, to the file that is named."""

import json
import sys

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS, THEIRS = "#1a6fb5", "#9aa5b1"


def main() -> None:
    """Bars of messages a second, and the label curve beside them where there is one."""
    report = json.loads(sys.stdin.read())
    curve = [row for row in report["curves"].get("labels", []) if "worker" in row]
    figure, axes = plt.subplots(1, 2 if curve else 1, figsize=(12 if curve else 7, 4), squeeze=False)
    _bars(axes[0][0], report)
    if curve:
        _curve(axes[0][1], curve)
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=120)


def _bars(axis: plt.Axes, report: dict) -> None:
    found = sorted(report["contestants"].items(), key=lambda item: item[1]["messages_per_second"])
    rates = [row["messages_per_second"] for _, row in found]
    bars = axis.barh(
        [name.replace("_", " ") for name, _ in found],
        rates,
        color=[OURS if name == "worker" else THEIRS for name, _ in found],
    )
    axis.bar_label(bars, fmt="%.3g", padding=3)
    axis.set_xlim(0, 1.15 * max(rates))
    load = report["workload"]
    axis.set_title(
        f"messages a second: {load['kind']} texts, {load['labels']} labels, {report['machine']['cores']} cores"
    )


def _curve(axis: plt.Axes, rows: list) -> None:
    for name, color in (("worker", OURS), ("gliclass", THEIRS)):
        points = [(int(row["labels"]), row.get(name, {}).get("messages_per_second")) for row in rows]
        points = [(count, rate) for count, rate in points if rate]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", color=color, label=name)
    axis.set(xscale="log", yscale="log", xlabel="labels", title="messages a second by the number of labels")
    axis.grid(visible=True, which="both", alpha=0.3)
    axis.legend()


if __name__ == "__main__":
    main()
