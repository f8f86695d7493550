"""Figures of a reading."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kn_attrib.evaluation.reading.result import ReadingResult
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.style import figure_style, new_figure

OWN, OTHER = sns.color_palette("colorblind")[0], (0.55, 0.55, 0.55)
TITLES = {"agreement": "the value's most likely word", "among_10": "the value's ten most likely words"}


def reading_figures(result: ReadingResult) -> dict[str, CaptionedFigure]:
    """Agreement by layer, and the answer behind each layer."""
    found = {"agreement": CaptionedFigure(agreement_figure(result), AGREEMENT)}
    if not result.lens.empty:
        found["lens"] = CaptionedFigure(lens_figure(result), LENS)
    return found


AGREEMENT = (
    "Share of each layer's neurons that write what follows the context that activates them most. Bands: 95 % Wilson "
    "intervals over neurons. Grey: value vectors shuffled within the layer."
)
LENS = (
    "Log-probability of the answer (nats) behind each layer, through final norm and unembedding: mean over facts. "
    "Band: 95 % bootstrap interval over relations, then facts."
)


def agreement_figure(result: ReadingResult) -> Figure:
    """Agreement by layer, own values beside shuffled ones, a panel for each measure."""
    with figure_style():
        figure = Figure(figsize=(8.4, 3), layout="constrained")
        panels = figure.subplots(1, len(TITLES))
        for axes, (measure, title) in zip(panels, TITLES.items(), strict=True):
            for name, colour in (("own", OWN), ("shuffled", OTHER)):
                part = result.agreement[(result.agreement.measure == measure) & (result.agreement["values"] == name)]
                _line(axes, part.layer, part["share"], part, colour, f"{name} values")
            axes.set(title=title, xlabel="layer", ylabel="neurons in agreement")
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        panels[0].legend(frameon=False)
    return figure


def lens_figure(result: ReadingResult) -> Figure:
    """The answer's log-probability behind each layer."""
    found = result.lens_summary()
    with figure_style():
        figure, axes = new_figure(4.6, 3)
        _line(axes, found.layer, found["mean"], found, OWN, "")
        axes.set(xlabel="layer", ylabel="log p(answer), nats")
    return figure


def _line(axes: Axes, layers: pd.Series, values: pd.Series, bounds: pd.DataFrame, colour: object, label: str) -> None:
    axes.plot(layers, values, "o-", markersize=3, color=colour, label=label)
    axes.fill_between(layers, bounds.low, bounds.high, color=colour, alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
