"""Tables, figures and pages of INJ and DEL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kn_attrib import FactSet, NeuronModel
from kn_attrib.evaluation.protocols.deletion import DeletionProtocol, DeletionSettings
from kn_attrib.evaluation.protocols.figures import change_by_method, recall_by_method
from kn_attrib.evaluation.protocols.injection import InjectionProtocol, InjectionSettings
from kn_attrib.evaluation.protocols.tables import injection_tables

METHODS = ["activation", "random"]


@pytest.fixture
def inj(load_tiny: Any, facts: FactSet) -> InjectionProtocol:
    settings = InjectionSettings(known_share=1.01, ratios=(0.3,), information="unknown", rate=0.1)
    return InjectionProtocol(load_tiny("masked"), facts, METHODS, settings, progress=False)


def test_the_figure_of_inj_shows_the_means(inj: InjectionProtocol, tmp_path: Path) -> None:
    result = inj.run()
    (axes,) = recall_by_method(result)
    first = result.cell(scope="layer", truth="all", k=0.01).set_index("method")["mean"].reindex(METHODS)
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert np.asarray(dots[0].get_xdata()).tolist() == pytest.approx(first.tolist())
    broken = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dots) == len(broken) == 3
    assert np.asarray(broken[0].get_xdata())[0] == pytest.approx(3 / 144)  # one neuron of each of three layers
    assert to_rgb(broken[0].get_color()) == to_rgb(dots[0].get_color())
    html = inj.publish(result, tmp_path).read_text(encoding="utf-8")
    assert "INJ: Facts injected into random value vectors: which methods find them?" in html
    assert html.count("<svg") == 1
    assert (tmp_path / "figures" / "recall.svg").is_file()


def test_nothing_speaking_and_nothing_injected_are_said(inj: InjectionProtocol) -> None:
    result = inj.run()
    silent = result.rows.assign(value=result.rows.value.where(result.rows.truth != "speaking"))
    titles = [title for title, _ in injection_tables(replace(result, rows=silent))]
    assert titles[-1].endswith("4 of 4 facts injected; those active at the answer position: none.")
    nothing = replace(result, rows=result.rows[:0], manifest=result.manifest | {"reached": {"0.3": 0}})
    ((title, table),) = injection_tables(nothing)
    assert "0 of 4 facts injected; nothing to find" in title
    assert table is None
    assert inj.figures(nothing) == {}


def test_the_figure_of_del_shows_the_means(tiny: NeuronModel, facts: FactSet) -> None:
    settings = DeletionSettings(known_share=0.0, ratios=(0.05, 0.5), sentences=0)
    result = DeletionProtocol(tiny, facts, METHODS, settings, progress=False).run()
    panels = change_by_method(result)
    assert [axes.get_title() for axes in panels] == [f"the top {r} of each layer dropped" for r in ("5.0%", "50.0%")]
    cell = result.cell(ratio=0.5, group="self", metric="accuracy_change").set_index("method")["mean"].reindex(METHODS)
    dots = [line for line in panels[1].lines if line.get_label() == "the fact itself"]
    assert np.asarray(dots[0].get_xdata()).tolist() == pytest.approx(cell.tolist())
