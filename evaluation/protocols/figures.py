"""Figures of the two protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, Panels, handles_of

INTERVALS = "Lines: 95 % bootstrap intervals over relations, then facts."
CHANGES = {"self": "the fact itself", "held_out": "its paraphrases", "negative": "other facts"}
"""Groups of DEL that have accuracies, as the legend calls them."""


def recall_by_method(result: Result, canvas: Canvas = OFF_SCREEN) -> Panels:
    """INJ: recall in each layer's top k %, by method, with 95 % intervals: a panel for each ratio.

    A broken line is what a random ranking finds on average.
    """
    found = result.summary
    found = found[(found.scope == "layer") & (found.truth == "all")]
    chance = result.rows[result.rows.scope == "layer"].groupby(["ratio", "k"]).chance.mean()
    names = {k: f"k = {100 * k:g} %" for k in sorted(found.k.unique())}
    colours = _colours(names.values())

    def draw(axes: Axes, ratio: float, part: pd.DataFrame) -> None:
        _points(axes, part.assign(series=part.k.map(names)), colours, result.methods)
        for k in part.k.unique():
            axes.axvline(chance[ratio, k], color=colours[names[k]], linewidth=0.9, linestyle="--")
        axes.set(title=f"{ratio:.1%} of the neurons injected into", xlabel="recall in each layer's top k %")
        axes.set_xlim(left=-0.005)

    return _panels(found, result.methods, draw, canvas)


def change_by_method(result: Result, canvas: Canvas = OFF_SCREEN) -> Panels:
    """DEL: change of accuracy when each layer's top neurons are dropped, by method: a panel for each ratio."""
    found = result.summary
    found = found[(found.metric == "accuracy_change") & found.group.isin(list(CHANGES))]
    colours = _colours(name for group, name in CHANGES.items() if (found.group == group).any())

    def draw(axes: Axes, ratio: float, part: pd.DataFrame) -> None:
        _points(axes, part.assign(series=part.group.map(CHANGES)), colours, result.methods)
        axes.axvline(0, color="0.2", linewidth=0.8)
        axes.set(title=f"the top {ratio:.1%} of each layer dropped", xlabel="change of accuracy")

    return _panels(found, result.methods, draw, canvas)


FIGURES = {"inj": recall_by_method, "del": change_by_method}
"""By the name of the protocol."""


def _colours(names: Iterable[str]) -> dict[str, Any]:
    return dict(zip(names, sns.color_palette("colorblind"), strict=False))


def _panels(
    found: pd.DataFrame, methods: list[str], draw: Callable[[Axes, float, pd.DataFrame], None], canvas: Canvas
) -> Panels:
    """A panel for each ratio, and one legend for all of them."""
    ratios = sorted(found.ratio.unique())
    with canvas.panels(len(ratios), 1.8 + 4.2 * len(ratios), 1.7 + 0.5 * len(methods), sharey=True) as panels:
        for axes, ratio in zip(panels, ratios, strict=True):
            draw(axes, ratio, found[found.ratio == ratio])
        canvas.legend(panels[-1], handles_of(panels), "outside lower center", ncols=6)
    return panels


def _points(axes: Axes, cells: pd.DataFrame, colours: Mapping[str, Any], methods: list[str]) -> None:
    """Means with their intervals: a row for each method, a colour for each series."""
    series = [name for name in colours if (cells.series == name).any()]
    for number, name in enumerate(series):
        part = cells[cells.series == name].set_index("method").reindex(methods)
        y = [row + 0.7 / len(series) * (number - (len(series) - 1) / 2) for row in range(len(methods))]
        axes.plot(part["mean"], y, "o", markersize=4, color=colours[name], label=name)
        axes.hlines(y, part.low, part.high, color=colours[name], linewidth=1.2)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
