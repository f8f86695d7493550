"""The figure of one intervention: bars by method and group, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.vocabulary import GROUP_NAMES

# Dark for what should move, lighter for the control groups, grey for random neurons.
GROUP_COLOURS = dict(zip(GROUP_NAMES, sns.color_palette("colorblind"), strict=False)) | {"random": (0.6, 0.6, 0.6)}
FAR = 0.25
"""A group whose intervals would widen the axis of all others by more than this share has an axis of its own."""


def bars(comparison: ComparisonRows, intervention: str, *, canvas: Canvas = OFF_SCREEN) -> Axes:
    """Relative change of p(answer) by method and group, with 95 % intervals (refined neurons).

    In a new figure, groups whose intervals dwarf their bars and everything else stand in a panel of their own, which
    says so; the first panel is returned.
    """
    cells = comparison.cell(intervention=intervention, selection="refined")
    own = cells[cells.neurons == "method"]
    random = cells[(cells.neurons == "random") & (cells.group == "target")].assign(group="random")
    data = pd.concat([own, random])
    data = data[data["mean"].notna() & data.method.isin(comparison.methods)]
    far = [] if canvas.given is not None else far_groups(data)
    near = [group for group in GROUP_NAMES if group not in far]
    size = (8.5 + 2.6 * len(far), 1.4 + 0.7 * len(comparison.methods))
    ratios = [3.0] + [1.3] * len(far)
    with canvas.panels(1 + len(far), *size, sharey=True, width_ratios=ratios) as panels:
        _bars(panels[0], data, comparison.methods, near)
        panels[0].set_title(f"Each method's refined neurons: {intervention.replace('_', ' ')}")
        panels[0].set(xlabel="relative change of p(answer) on held-out paraphrases")
        panels[0].set_yticks(range(len(comparison.methods)), comparison.methods)
        # Downwards, as tables are read; the panels share this axis.
        panels[0].set_ylim(len(comparison.methods) - 0.5, -0.5)
        for axes, group in zip(panels[1:], far, strict=True):
            _bars(axes, data, comparison.methods, [group])
            axes.set_title(f"{GROUP_NAMES[group]}:\nan axis of its own")
        shown = [group for group in GROUP_NAMES if group in set(data.group)]
        patches = {GROUP_NAMES[group]: Patch(color=GROUP_COLOURS[group]) for group in shown}
        canvas.legend(panels[0], patches, "outside lower center", ncols=4)
    first: Axes = panels[0]
    return first


def far_groups(data: pd.DataFrame) -> list[str]:
    """Control groups whose widest interval dwarfs their bars and reaches far outside the range of all other groups.

    Parameters
    ----------
    data : columns ``group, mean, low, high``.
    """
    reach = data.groupby("group", sort=False).agg(low=("low", "min"), high=("high", "max"))
    bar = data["mean"].abs().groupby(data.group, sort=False).max()
    widest = (data.high - data.low).groupby(data.group, sort=False).max()
    found: list[str] = []
    for group in reversed([g for g in GROUP_NAMES if g in reach.index and g != "target"]):
        # Zero belongs to the range: bars begin there.
        rest = reach.drop(index=[group, *found])
        low, high = min(rest.low.min(), 0.0), max(rest.high.max(), 0.0)
        beyond = max(low - reach.low[group], reach.high[group] - high)
        if len(rest) and widest[group] > bar[group] and beyond > FAR * (high - low):
            found.insert(0, group)
    return found


def _bars(axes: Axes, data: pd.DataFrame, methods: Sequence[str], groups: Sequence[str]) -> None:
    """Bars of some groups side by side, with their 95 % intervals."""
    # A group alone keeps slim bars: its intervals are what the panel is for.
    height = 0.8 / max(len(groups), 4)
    for j, group in enumerate(groups):
        part = data[data.group == group].set_index("method").reindex(list(methods))
        y = [i + (j + 0.5 - len(groups) / 2) * height for i in range(len(methods))]
        axes.barh(y, part["mean"].fillna(0), height=height * 0.9, color=GROUP_COLOURS[group], linewidth=0)
        axes.hlines(y, part.low, part.high, color="0.15", linewidth=1.0)
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(8 if len(groups) > 1 else 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%".replace("-", "−")))
    axes.grid(visible=False, axis="y")
