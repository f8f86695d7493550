"""The figure of a grid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kn_attrib.evaluation.records.style import figure_style


def main_effects(effects: pd.DataFrame) -> Figure:
    """Means of a grid's factors, level by level: a panel for each factor, a line for each method."""
    names = list(effects.factor.unique())
    methods = list(effects.method.unique())
    palette = dict(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True))
    with figure_style():
        figure = Figure(figsize=(1.5 + 3.2 * len(names), 4.0), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            own = effects[effects.factor == name]
            levels = list(own.level.unique())
            for i, (method, part) in enumerate(own.groupby("method", sort=False)):
                # Side by side, so that no method's interval hides another's.
                x = np.arange(len(part)) + 0.06 * (i - (len(methods) - 1) / 2)
                bars = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
                axes.errorbar(
                    x,
                    part["mean"],
                    yerr=bars,
                    marker="o",
                    markersize=4,
                    color=palette[str(method)],
                    label=str(method),
                    linewidth=1.2,
                )
            axes.set_xticks(range(len(levels)), levels)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set(xlabel=name, ylabel="relative change of p(answer)" if axes is panels[0] else "")
        # A method that one factor does not concern is missing from that factor's panel.
        handle_of: dict[str, Artist] = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            handle_of |= dict(zip(labels, handles, strict=True))
        figure.legend(handle_of.values(), handle_of.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure
