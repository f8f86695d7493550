"""The figure of a planted benchmark."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas


def heat_map(table: pd.DataFrame, metric: str, canvas: Canvas = OFF_SCREEN) -> Axes:
    """How well each method finds planted neurons, by axis of difficulty: mean of a metric, the best method on top.

    Parameters
    ----------
    table : methods × axes.
    """
    share = metric != "rank"
    with canvas.panel(3.2 + 0.62 * table.shape[1], 1.9 + 0.28 * len(table)) as axes:
        sns.heatmap(
            table,
            annot=True,
            fmt=".2f" if share else ".0f",
            cmap="Blues" if share else "Blues_r",
            vmin=0,
            vmax=1 if share else None,
            ax=axes,
            cbar=False,
            linewidths=0.5,
        )
        axes.tick_params(axis="y", rotation=0)  # seaborn turns them where rows are narrow
        axes.set(title=f"Planted neurons found: {metric.replace('_', ' ')}", xlabel="", ylabel="")
        axes.set_xticklabels([str(c).replace("_", " ") for c in table.columns], rotation=40, ha="right")
    return axes
