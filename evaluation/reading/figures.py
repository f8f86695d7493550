"""Figures of a reading."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kn_attrib.evaluation.reading.rows import ReadingRows
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, Panels, figure_of

OWN, OTHER = sns.color_palette("colorblind")[0], (0.55, 0.55, 0.55)
TITLES = {"agreement": "the value's most likely word", "among_10": "the value's ten most likely words"}


AGREEMENT = (
    "Share of each layer's neurons that write what follows the context that activates them most. Bands: 95 % Wilson "
    "intervals over neurons. Grey: value vectors shuffled within the layer."
)
LENS = (
    "Log-probability of the answer (nats) behind each layer, through final norm and unembedding: mean over facts. "
    "Band: 95 % bootstrap interval over relations, then facts."
)


def reading_figures(result: ReadingRows) -> dict[str, CaptionedFigure]:
    """All figures of a page: agreement by layer, and, where facts were asked, the answer behind each layer."""
    found = {"agreement": CaptionedFigure(figure_of(agreement_figure(result.agreement)), AGREEMENT)}
    if not result.lens.empty:
        found["lens"] = CaptionedFigure(figure_of(lens_figure(result.lens_summary())), LENS)
    return found


def agreement_figure(found: pd.DataFrame, canvas: Canvas = OFF_SCREEN) -> Panels:
    """Agreement by layer (of `agreement_by_layer`), own values beside shuffled ones, a panel for each measure."""
    with canvas.panels(len(TITLES), 8.4, 3) as panels:
        for axes, (measure, title) in zip(panels, TITLES.items(), strict=True):
            for name, colour in (("own", OWN), ("shuffled", OTHER)):
                part = found[(found.measure == measure) & (found["values"] == name)]
                _line(axes, part.layer, part["share"], part, colour, f"{name} values")
            axes.set(title=title, xlabel="layer")
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(_in_percent)
        panels[0].set_ylabel("neurons in agreement")
        panels[0].legend(edgecolor="none", framealpha=0.9)  # no line of the grid through its words
    return panels


def lens_figure(found: pd.DataFrame, canvas: Canvas = OFF_SCREEN) -> Axes:
    """The answer's log-probability behind each layer (of `ReadingRows.lens_summary`)."""
    with canvas.panel(4.6, 3) as axes:
        _line(axes, found.layer, found["mean"], found, OWN, "")
        axes.set(xlabel="layer", ylabel="log p(answer), nats")
    return axes


def _in_percent(share: float, _: object) -> str:
    """``"0.5 %"``: as many digits as there are."""
    return f"{100 * share:.3g} %"


def _line(axes: Axes, layers: pd.Series, values: pd.Series, bounds: pd.DataFrame, colour: object, label: str) -> None:
    axes.plot(layers, values, "o-", markersize=3, color=colour, label=label)
    axes.fill_between(layers, bounds.low, bounds.high, color=colour, alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
