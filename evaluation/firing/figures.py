"""Figures of activations by kind of text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from kn_attrib.evaluation.firing.activations import OTHERS, OWN, STANDARDISED
from kn_attrib.evaluation.firing.groups import DESIGNS
from kn_attrib.evaluation.firing.rows import CONTRASTS, FiringRows
from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, Panels, handles_of

GROUPS_CAPTION = (
    "Mean activation of each fact's neurons by kind of text, in standard deviations over random words of random texts. "
    "Hollow: all other neurons of the same layers. Lines: 95 % bootstrap intervals over relations, then facts."
)
CONTRASTS_CAPTION = (
    "Differences between kinds of text. Filled: each fact's neurons; hollow: all other neurons of the same layers. "
    "Lines: 95 % bootstrap intervals over relations, then facts."
)
APART = 0.16
"""Between the points of two methods, in rows."""


def groups_figure(result: FiringRows, canvas: Canvas = OFF_SCREEN) -> Panels:
    """Standardised activation by group, a panel for each design."""
    found = result.summary
    found = found[found.metric == STANDARDISED]
    return _panels(found.rename(columns={"group": "row"}), result.methods, DESIGNS, "activation", canvas)


def contrasts_figure(result: FiringRows, canvas: Canvas = OFF_SCREEN) -> Panels:
    """Contrasts, a panel for each design."""
    found = result.contrasts.rename(columns={"contrast": "row"})
    return _panels(found, result.methods, CONTRASTS, "difference of activations", canvas)


def _panels(found: pd.DataFrame, methods: list[str], designs: object, what: str, canvas: Canvas) -> Panels:
    shown = {design: list(rows) for design, rows in dict(designs).items() if (found.design == design).any()}  # type: ignore[call-overload]
    height = 1.4 + 0.28 * max(map(len, shown.values()), default=1) * max(1, len(methods)) / 2
    with canvas.panels(max(1, len(shown)), 5.2 * max(1, len(shown)), height) as panels:
        for axes, (design, rows) in zip(panels, shown.items(), strict=False):
            _points(axes, found[found.design == design], methods, rows)
            axes.set(title=f"{design} design", xlabel=f"{what}, standard deviations")
        canvas.legend(panels[-1], handles_of(panels), "outside lower center", ncols=max(1, len(methods)))
    return panels


def _points(axes: Axes, found: pd.DataFrame, methods: list[str], rows: list[str]) -> None:
    for place, (method, colour) in enumerate(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True)):
        for neurons in (OWN, OTHERS):
            some = found[(found.method == method) & (found.neurons == neurons)].set_index("row")
            some = some.loc[[row for row in rows if row in some.index]]
            if some.empty:
                continue
            y = np.array([rows.index(row) for row in some.index]) + (place - (len(methods) - 1) / 2) * APART
            axes.errorbar(
                some["mean"],
                y,
                xerr=np.abs(some[["low", "high"]].to_numpy().T - some["mean"].to_numpy()),
                fmt="o",
                markersize=4,
                color=colour,
                markerfacecolor=colour if neurons == OWN else "white",
                linewidth=1,
                label=method if neurons == OWN else None,
            )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
