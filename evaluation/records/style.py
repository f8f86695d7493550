"""The style that all figures share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@contextmanager
def figure_style() -> Iterator[None]:
    """While active, figures are drawn in the style of all others, and give the same file every time."""
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "kn"}):
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of one panel, ``width`` × ``height`` inches."""
    # Figure() itself, not pyplot: nothing global is opened that somebody would have to close.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
