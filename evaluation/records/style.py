"""What figures are drawn on, and the style that those drawn on nothing given share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kn_attrib.errors import ConfigError

Panels = NDArray[np.object_]
"""Matplotlib ``Axes``, one for each panel of a figure, in a NumPy array as `pyplot.subplots` returns them."""

Outside = Literal["outside right center", "outside lower center"]


@contextmanager
def figure_style() -> Iterator[None]:
    """While active, figures are drawn in the style of all others, and give the same file every time."""
    with sns.axes_style("whitegrid"), mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "kn"}):
        yield


@dataclass(frozen=True)
class Canvas:
    """What a figure is drawn on: the caller's axes, in the caller's style, or a new figure in the style of all others.

    Parameters
    ----------
    given : ``Axes``, or a sequence or an array of them; None for a new figure.
    make : how a new figure is made.

    Raises
    ------
    ConfigError : something else than ``Axes`` is given.
    """

    given: Any = None
    # Figure() itself, not pyplot: nothing global is opened that somebody would have to close.
    make: Callable[..., Figure] = Figure

    def __post_init__(self) -> None:
        for axes in self._axes():
            if not isinstance(axes, Axes):
                raise ConfigError(f"{type(axes).__name__} is given to draw on; expected Axes of Matplotlib.")

    def _axes(self) -> Panels:
        return np.array([] if self.given is None else self.given, dtype=object).ravel()

    @contextmanager
    def panel(self, width: float, height: float) -> Iterator[Axes]:
        """The one panel of a figure; a new figure has ``width`` × ``height`` inches."""
        with self.panels(1, width, height) as (axes,):
            yield axes

    @contextmanager
    def panels(self, n: int, width: float, height: float, columns: bool = True, **layout: Any) -> Iterator[Panels]:
        """The ``n`` panels of a figure.

        Parameters
        ----------
        columns : side by side; else one above the other.
        layout : further arguments of ``Figure.subplots``, for a new figure.

        Raises
        ------
        ConfigError : another number of axes is given.
        """
        if self.given is not None:
            found = self._axes()
            if len(found) != n:
                raise ConfigError(f"{len(found)} axes are given to draw on; expected {n}, one for each panel.")
            yield found
            return
        with figure_style():
            figure = self.make(figsize=(width, height), layout="constrained")
            yield figure.subplots(*((1, n) if columns else (n, 1)), squeeze=False, **layout).ravel()

    def legend(self, axes: Axes, handles: Mapping[str, Artist], outside: Outside, ncols: int = 1) -> None:
        """The legend of a figure: beside the panels of a new one, within the axes that are given.

        Parameters
        ----------
        axes : the panel that holds it, where axes are given.
        handles : by label.
        outside : its place in a new figure.
        """
        if self.given is not None:
            axes.legend(handles.values(), handles.keys())
            return
        figure_of(axes).legend(handles.values(), handles.keys(), loc=outside, ncols=ncols, frameon=False)


OFF_SCREEN = Canvas()
"""For files and pages: a new figure that pyplot knows nothing of."""


def canvas_for(given: Any = None) -> Canvas:
    """What a public method draws on: the axes given, or a new figure of pyplot, which notebooks show."""
    return Canvas(given, plt.figure)


def figure_of(axes: Axes | Panels) -> Figure:
    """The figure that panels of a new figure are on."""
    first: Axes = np.ravel(np.array(axes, dtype=object))[0]
    figure = first.figure
    assert isinstance(figure, Figure)
    return figure


def handles_of(panels: Iterable[Axes]) -> dict[str, Artist]:
    """What the legend of several panels shows, by label."""
    found: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    return found
