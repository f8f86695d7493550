"""The figure of a grid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import PercentFormatter

from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, Panels, handles_of


def main_effects(effects: pd.DataFrame, canvas: Canvas = OFF_SCREEN) -> Panels:
    """Means of a grid's factors, level by level: a panel for each factor, a line for each method."""
    names = list(effects.factor.unique())
    methods = list(effects.method.unique())
    palette = dict(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True))
    with canvas.panels(len(names), 1.5 + 3.2 * len(names), 4.0, sharey=True) as panels:
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
        canvas.legend(panels[-1], handles_of(panels), "outside lower center", ncols=3)
    return panels
