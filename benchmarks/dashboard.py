"""Draws what the panels of the dashboard ask, from a Prometheus that watches workers: no picture of Grafana.

    uv run --no-project --with matplotlib python benchmarks/dashboard.py http://127.0.0.1:9090 docs/dashboard.png

Grafana itself draws the same queries, units, thresholds and places in its own way.
"""

import argparse
import io
import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image  # comes with matplotlib

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "worker.json"
POINTS = 160
RATE_SECONDS = 60
COLUMNS = 24
INCHES_PER_COLUMN, INCHES_PER_ROW = 0.66, 0.3
HEADER_ROWS = 2.2
COLOURS = {
    "green": "#2a8a3e",
    "orange": "#d9730d",
    "red": "#c4162a",
    "blue": "#1a6fb5",
    "text": "#1f2933",
    "transparent": "none",
}
SERIES = ["#1a6fb5", "#c77700", "#4c8c3f", "#8e4fa8", "#8a6d3b", "#3b8f9a", "#a3355e", "#5b6770"]
MUTED, LINE = "#616e7c", "#cbd2d9"
SECOND_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Prometheus:
    """What it answers about a span of time."""

    def __init__(self, address: str, end: float, minutes: float) -> None:
        self._address = address
        self.start, self.end = end - 60 * minutes, end

    def now(self, query: str) -> list[dict]:
        """The series at the end of the span, each with its `value`."""
        return self._ask("query", query=query, time=self.end)

    def over_time(self, query: str) -> list[dict]:
        """The series over the span, each with its `values`."""
        step = (self.end - self.start) / POINTS
        return self._ask("query_range", query=query, start=self.start, end=self.end, step=step)

    def _ask(self, path: str, *, query: str, **when: float) -> list[dict]:
        filled = re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", f"{RATE_SECONDS}s"))  # all jobs, all workers
        parameters = urllib.parse.urlencode({"query": filled, **when})
        with urllib.request.urlopen(f"{self._address}/api/v1/{path}?{parameters}", timeout=30) as response:  # noqa: S310
            return json.load(response)["data"]["result"]


def worded(value: float, unit: str | None) -> str:
    """A number with its unit."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        size, name = next((pair for pair in SECOND_UNITS if abs(value) >= pair[0]), (1, "s"))
        return f"{value / size:.3g} {name}"
    scale, names = (1024, ("", "Ki", "Mi", "Gi")) if unit == "bytes" else (1000, ("", "k", "M", "G"))
    power = 0
    while abs(value) >= scale and power < len(names) - 1:
        value, power = value / scale, power + 1
    name = {"bytes": "B", "recps": "rec/s", "ops": "ops/s"}.get(unit or "", (unit or "").partition("count:")[2])
    return f"{value:.3g} {names[power]}{name}".rstrip()


def legend(target: dict, labels: dict[str, str]) -> str:
    """What a series is called."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), target["legendFormat"]).strip()


def field_of(panel: dict, name: str) -> dict:
    """The settings of a series: the panel's, and what overrides say of it."""
    defaults = panel["fieldConfig"]["defaults"]
    field = {**defaults, "custom": dict(defaults.get("custom", {}))}
    for override in panel["fieldConfig"]["overrides"]:
        if re.search(override["matcher"]["options"].strip("/"), name):
            for each in override["properties"]:
                where = field["custom"] if each["id"].startswith("custom.") else field
                where[each["id"].removeprefix("custom.")] = each["value"]
    return field


def draw_stat(axis: plt.Axes, panel: dict, prometheus: Prometheus) -> None:
    """One number, in the colour of the threshold that it is over."""
    field = panel["fieldConfig"]["defaults"]
    found = prometheus.now(panel["targets"][0]["expr"])
    text, colour = field["noValue"], MUTED
    if found:
        value = float(found[0]["value"][1])
        text = worded(value, field["unit"])
        over = [
            step["color"] for step in field["thresholds"]["steps"] if step["value"] is None or value >= step["value"]
        ]
        colour = COLOURS[over[-1]]
    axis.text(0.5, 0.4, text, ha="center", va="center", fontsize=17, color=colour, transform=axis.transAxes)
    axis.set_axis_off()


def draw_table(axis: plt.Axes, panel: dict, prometheus: Prometheus) -> None:
    """Rows of labels, and how many there are of each."""
    settings = panel["transformations"][0]["options"]
    columns = sorted(settings["indexByName"], key=settings["indexByName"].get)
    found = prometheus.now(panel["targets"][0]["expr"])
    rows = [[{**row["metric"], "Value": row["value"][1]}[name][:26] for name in columns] for row in found]
    names = [settings["renameByName"].get(name, name) for name in columns]
    table = axis.table([names, *rows], loc="upper left", cellLoc="left", edges="horizontal")
    table.auto_set_font_size(value=False)
    table.set_fontsize(7)
    table.auto_set_column_width(list(range(len(columns))))
    axis.set_axis_off()


def draw_graph(axis: plt.Axes, panel: dict, prometheus: Prometheus) -> None:
    """Lines or stacked bars over time."""
    series = [
        (legend(target, row["metric"]), row["values"])
        for target in panel["targets"]
        for row in prometheus.over_time(target["expr"])
    ]
    sides: dict[str, plt.Axes] = {"left": axis}
    below: dict[float, float] = {}
    for number, (name, values) in enumerate(series):
        field = field_of(panel, name)
        side = field["custom"].get("axisPlacement", "left")
        if side not in sides:
            sides[side] = axis.twinx()
        fixed = field["color"].get("fixedColor")
        colour = COLOURS[fixed] if fixed else SERIES[number % len(SERIES)]
        stacked = below if field["custom"]["stacking"]["mode"] == "normal" else None
        draw_series(sides[side], (name, values), field, colour, stacked)
    for side in sides.values():
        finish_axis(side, prometheus)
    lines = [handle for side in sides.values() for handle in side.get_legend_handles_labels()[0]]
    threshold(axis, panel)
    if lines:
        place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.13), "borderpad": 0, "frameon": False}
        axis.legend(handles=lines, ncol=4, fontsize=6.5, **place)
    else:
        axis.text(0.5, 0.5, "no data", ha="center", color=MUTED, transform=axis.transAxes)


def draw_series(axis: plt.Axes, series: tuple, field: dict, colour: str, stacked: dict | None) -> None:
    """One series; `stacked`: how high what is below it reaches at each moment, brought up to date."""
    name, values = series
    values = [(when, float(value)) for when, value in values if value not in {"NaN", "+Inf"}]
    moments = [when / 86400 for when, _ in values]
    heights = [value for _, value in values]
    if field["custom"]["drawStyle"] == "bars" and stacked is not None:
        bottoms = [stacked.get(when, 0.0) for when, _ in values]
        stacked.update({when: bottom + value for (when, value), bottom in zip(values, bottoms, strict=True)})
        axis.bar(moments, heights, bottom=bottoms, width=4 / 86400, color=colour, label=name)
    else:
        axis.plot(moments, heights, color=colour, linewidth=1.2, label=name)
        if field["custom"]["fillOpacity"]:
            axis.fill_between(moments, heights, color=colour, alpha=0.08, linewidth=0)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: worded(value, field["unit"])))
    if "max" in field:
        axis.set_ylim(top=field["max"])


def finish_axis(axis: plt.Axes, prometheus: Prometheus) -> None:
    """From 0 up, over the whole span, without much ink."""
    axis.set_ylim(0, axis.get_ylim()[1] if axis.dataLim.ymax > 0 else 1)
    axis.set_xlim(prometheus.start / 86400, prometheus.end / 86400)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.tick_params(labelsize=6.5, colors=MUTED, length=0)
    axis.grid(visible=True, color=LINE, linewidth=0.4)
    axis.spines[:].set_visible(False)


def threshold(axis: plt.Axes, panel: dict) -> None:
    """A dashed line where the panel has a threshold to show."""
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None:
                axis.axhline(step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=0.9)
                axis.set_ylim(top=max(axis.get_ylim()[1], 1.2 * step["value"]))


DRAW = {"stat": draw_stat, "table": draw_table, "timeseries": draw_graph}


def draw(prometheus: Prometheus, picture: str) -> None:
    """Every panel in its place."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    rows = HEADER_ROWS + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(COLUMNS * INCHES_PER_COLUMN, rows * INCHES_PER_ROW), facecolor="white")
    begin, end = (time.strftime("%H:%M", time.gmtime(moment)) for moment in (prometheus.start, prometheus.end))
    figure.text(0.012, 1 - 0.8 / rows, "Classification worker", fontsize=15, weight="bold", va="center")
    figure.text(
        0.012,
        1 - 1.75 / rows,
        f"What the panels of {DASHBOARD.name} ask, {begin} to {end} UTC, drawn from a running worker's Prometheus by "
        f"benchmarks/{Path(__file__).name}. Not a picture of Grafana.",
        fontsize=9,
        color=MUTED,
        va="center",
    )
    for panel in panels:
        place = panel["gridPos"]
        top = 1 - (HEADER_ROWS + place["y"]) / rows
        left, height = place["x"] / COLUMNS, place["h"] / rows
        if panel["type"] == "row":
            figure.text(0.012, top - 0.55 * height, panel["title"], fontsize=11, weight="bold", va="center")
            continue
        at, align = (left + place["w"] / COLUMNS / 2, "center") if panel["type"] == "stat" else (left + 0.012, "left")
        figure.text(at, top - 0.6 / rows, panel["title"], fontsize=8.5, va="center", ha=align)
        # Room for the title above, for the legend below, for the numbers on both sides.
        bottom = top - height + (2 / rows if panel["type"] == "timeseries" else 0.3 / rows)
        margin = 0.045 if panel["type"] == "timeseries" else 0.012
        box = (left + margin, bottom, place["w"] / COLUMNS - 2 * margin, top - 1.2 / rows - bottom)
        DRAW[panel["type"]](figure.add_axes(box), panel, prometheus)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    Image.open(drawn).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its address")
    parser.add_argument("picture", help="the file to write")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--at", type=float, default=time.time(), help="the end, in seconds of Unix time; now")
    arguments = parser.parse_args()
    draw(Prometheus(arguments.prometheus, arguments.at, arguments.minutes), arguments.picture)


if __name__ == "__main__":
    main()
