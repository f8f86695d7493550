"""The small chart under an answer: points with their intervals, a scale for each unit."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, Panels
from kn_attrib.evaluation.report.answer import Answer, Panel

INK, MARK = "0.15", "#0b6bcb"
WIDTH, ROW, FRAME = 7.2, 0.26, 0.42
"""In inches: of the chart, and the height of a row and of what surrounds a panel's rows."""


def answer_figure(answer: Answer, canvas: Canvas = OFF_SCREEN) -> Panels:
    """The numbers that an answer rests on; it has at least one panel."""
    heights = [FRAME + ROW * len(panel.numbers) for panel in answer.panels]
    with canvas.panels(len(heights), WIDTH, sum(heights), columns=False, height_ratios=heights) as rows:
        for axes, panel in zip(rows, answer.panels, strict=True):
            _draw(axes, panel)
    return rows


def answer_text(answer: Answer) -> str:
    """What the chart shows, in words."""
    return " ".join(panel.text() for panel in answer.panels)


def _draw(axes: Axes, panel: Panel) -> None:
    for y, number in enumerate(panel.numbers):
        axes.hlines(y, number.low, number.high, color=INK, linewidth=1.4)
        face = INK if number.clear else "white"
        axes.plot([number.mean], [y], "o", markersize=5.5, color=INK, markerfacecolor=face)
    for mark in panel.marks:
        axes.axvline(mark, color=MARK, linewidth=1.0, linestyle="--", zorder=0)
    axes.axvline(0, color="0.2", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(panel.numbers)), [number.name for number in panel.numbers])
    axes.set_ylim(len(panel.numbers) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, panel)))


def _tick(value: float, panel: Panel) -> str:
    text = f"{value:.3g} nats" if panel.unit == "nats" else f"{100 * value:.3g} %"
    return (text.replace(" %", " points") if panel.unit == "points" else text).replace("-", "−")
