"""Plots as users of Matplotlib expect them: into the axes given, in the style that is set, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kn_attrib import FactSet, NeuronModel
from kn_attrib.cli.publish import publish
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.records.style import Canvas, figure_of
from kn_attrib.evaluation.report.bars import bars
from kn_attrib.evaluation.report.figures import FIGURES
from small_results import small_benchmark, small_comparison, small_deletion, small_grid, small_injection
from synthetic_comparison import BASE, synthetic

KINDS = ("suppress", "amplify", *FIGURES)
PANELS = {"grid": 2, "inj": 1, "del": 2, "planted": 1, **dict.fromkeys(KINDS, 1)}
"""Panels of each plot."""
Plot = Callable[..., Any]


@pytest.fixture(scope="module")
def model(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("masked", "float32")


@pytest.fixture(scope="module")
def comparison(model: NeuronModel, module_facts: FactSet) -> Comparison:
    return small_comparison(model, module_facts)


@pytest.fixture(scope="module")
def plots(comparison: Comparison, model: NeuronModel, module_facts: FactSet) -> dict[str, Plot]:
    """Every public plot, as a function of the axes."""

    def of(kind: str) -> Plot:
        return lambda axes=None: comparison.plot(kind, ax=axes)

    planted, grid = small_benchmark(), small_grid(model, module_facts)
    return {
        **{kind: of(kind) for kind in KINDS},
        "planted": lambda axes=None: planted.plot(ax=axes),
        "grid": lambda axes=None: grid.plot(axes=axes),
        "inj": small_injection(model, module_facts).plot,
        "del": small_deletion(model, module_facts).plot,
    }


@pytest.fixture(autouse=True)
def nothing_global_changes() -> Iterator[None]:
    plt.close("all")
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")


@pytest.mark.parametrize("name", PANELS)
def test_given_axes_are_drawn_on_and_returned(plots: dict[str, Plot], name: str) -> None:
    n = PANELS[name]
    figure = Figure(figsize=(9, 4))
    given = figure.subplots(1, n, squeeze=False)[0]
    size, engine = figure.get_size_inches().tolist(), figure.get_layout_engine()
    drawn = plots[name](given[0] if n == 1 else list(given))
    assert np.ravel(np.array(drawn, dtype=object)).tolist() == given.tolist()
    assert all(axes.has_data() for axes in given)
    assert figure.axes == given.tolist()  # no panels beside them, and no legend of the figure
    assert figure.legends == []
    assert figure.get_size_inches().tolist() == size
    assert figure.get_layout_engine() is engine
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PANELS)
def test_without_axes_there_is_a_new_figure_of_pyplot(plots: dict[str, Plot], name: str) -> None:
    mine = plt.figure()
    drawn = plots[name]()
    assert isinstance(drawn, np.ndarray if name in ("grid", "inj", "del") else Axes)
    axes = np.ravel(np.array(drawn, dtype=object))
    assert len(axes) == PANELS[name]
    assert figure_of(drawn).number == plt.gcf().number != mine.number
    assert len(plt.get_fignums()) == 2
    assert mine.axes == []


def test_given_axes_keep_the_style_that_is_set(comparison: Comparison) -> None:
    with mpl.rc_context({"axes.facecolor": "#123456", "axes.titlesize": 33}):
        figure = Figure()
        given = comparison.plot("budgets", ax=figure.subplots())
        new = comparison.plot("budgets")
    assert given.title.get_fontsize() == 33
    assert mpl.colors.to_hex(given.get_facecolor()) == "#123456"
    assert mpl.colors.to_hex(new.get_facecolor()) == "#ffffff"
    legend = given.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == comparison.methods


def test_groups_that_have_a_panel_of_their_own_share_the_given_axes(comparison: Comparison) -> None:
    rows = comparison.rows.copy()
    plain = (rows.group == "plain_text") & (rows.metric == "relative_change")
    rows.loc[plain, "value"] = (rows[plain].fact == rows.fact.iloc[0]).map({True: 50.0, False: -10.0})
    wild = replace(comparison, rows=rows)
    assert len(figure_of(bars(wild, "suppress")).axes) == 2
    figure = Figure()
    axes = bars(wild, "suppress", canvas=Canvas(figure.subplots()))
    assert figure.axes == [axes]
    drawn = {round(float(patch.get_width()), 3) for patch in axes.patches}  # type: ignore[attr-defined]
    expected = wild.cell(intervention="suppress", selection="refined", group="plain_text", method="random")["mean"]
    assert round(float(expected.iloc[0]), 3) in drawn


@pytest.mark.parametrize(("given", "message"), [
    ("axes", "str is given to draw on; expected Axes of Matplotlib"),
    (Figure(), "Figure is given to draw on; expected Axes of Matplotlib"),
    (list(Figure().subplots(1, 3)), "3 axes are given to draw on; expected 1, one for each panel"),
])  # fmt: skip
def test_what_is_no_axes_is_refused(comparison: Comparison, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparison.plot(ax=given)


def test_what_cannot_be_drawn_is_said(plots: dict[str, Plot], model: NeuronModel, module_facts: FactSet) -> None:
    with pytest.raises(ConfigError, match="1 axes are given to draw on; expected 2"):
        plots["grid"](Figure().subplots())
    found = small_injection(model, module_facts)
    nothing = replace(found, rows=found.rows[:0])
    with pytest.raises(ConfigError, match="no fact was injected, so there is nothing to draw"):
        nothing.plot()
    with pytest.raises(ConfigError, match=r"unknown metric 'recal'. Did you mean 'recall'"):
        small_benchmark().plot("recal")


def test_reports_open_no_figure_and_are_the_same_every_time(comparison: Comparison, tmp_path: Path) -> None:
    plt.figure()
    pages = []
    for name in ("first", "second"):
        publish(comparison, tmp_path / name)
        drawn = sorted((tmp_path / name / "figures").iterdir())
        pages.append([file.read_bytes() for file in [tmp_path / name / "report.html", *drawn]])
    assert pages[0] == pages[1]
    assert len(pages[0]) == 1 + 2 * len(KINDS)
    assert len(plt.get_fignums()) == 1


def test_titles_fit_into_the_axes_of_a_caller(comparison: Comparison) -> None:
    made_up = synthetic(BASE)
    parts = [made_up.rows.assign(selection=made_up.rows.selection.replace("k=5", f"k={k}")) for k in (1, 5, 10, 20, 50)]
    many = replace(made_up, rows=pd.concat(parts).drop_duplicates(ignore_index=True))
    for of, kind in [(many, "specificity"), *((comparison, kind) for kind in KINDS)]:
        figure, axes = plt.subplots()
        of.plot(kind, ax=axes)
        figure.canvas.draw()
        title = axes.title.get_window_extent()
        assert title.x0 >= 0, kind
        assert title.x1 <= figure.bbox.width, kind
        plt.close(figure)
