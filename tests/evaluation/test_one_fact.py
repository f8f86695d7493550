"""Of one fact there is no interval: tables of every experiment show a dash, figures and pages are drawn without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kn_attrib import FactSet, NeuronModel
from kn_attrib.evaluation.firing.tables import firing_tables
from kn_attrib.evaluation.protocols.deletion import DeletionProtocol, DeletionSettings
from kn_attrib.evaluation.protocols.injection import InjectionProtocol, InjectionSettings
from kn_attrib.evaluation.reading.tables import methods_table
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.evaluation.report.leaderboard import leaderboard_text
from kn_attrib.evaluation.report.page import drill_down
from small_results import METHODS, small_comparison, small_grid, small_prompt_types, small_reading, small_trace

ZERO_WIDTH = re.compile(r"\[([^\]]+), \1\]")
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def model(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("causal")


def texts_of(tables: Iterable[pd.DataFrame | TitledTable]) -> Iterator[str]:
    for each in tables:
        title, table = each if isinstance(each, TitledTable) else ("", each)
        yield title
        if table is not None:
            yield from (str(cell) for cell in table.to_numpy().ravel())


def hold_no_interval(tables: Iterable[pd.DataFrame | TitledTable]) -> None:
    found = list(texts_of(tables))
    assert any("[–]" in text for text in found)
    assert not [text for text in found if ZERO_WIDTH.search(text) or "nan" in text]


def test_a_comparison(model: NeuronModel, module_facts: FactSet, tmp_path: Path) -> None:
    found = small_comparison(model, module_facts, limit=1)
    assert found.summary[found.summary.n == 1][["low", "high"]].isna().all(axis=None)
    hold_no_interval([found.table(), found.control_table(), leaderboard_text(found)])
    assert drill_down(found)
    page = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "[–]" in page
    drawn = r"<(svg|pre|style|script).*?</\1>"
    assert not re.search(r"\bnan\b", re.sub(drawn, "", page, flags=re.S))


def test_a_grid(model: NeuronModel, module_facts: FactSet, tmp_path: Path) -> None:
    found = small_grid(model, module_facts, limit=1)
    hold_no_interval([found.table()])
    found.report(tmp_path / "grid.html")


def test_protocols(model: NeuronModel, module_facts: FactSet, tmp_path: Path) -> None:
    settings = InjectionSettings(limit=1, known_share=1.01, ratios=(0.3,), information="unknown", rate=0.1)
    other = DeletionSettings(limit=1, known_share=0.0, ratios=(0.5,), sentences=2)
    injection = InjectionProtocol(model, module_facts, METHODS, settings, progress=False)
    deletion = DeletionProtocol(model, module_facts, METHODS, other, progress=False)
    for run in (injection, deletion):
        result: Any = run.run()
        hold_no_interval(run.tables(result))
        run.publish(result, tmp_path / run.name)


def test_a_reading(model: NeuronModel, module_facts: FactSet) -> None:
    found = small_reading(model, module_facts[:1])
    hold_no_interval([methods_table(found)])
    assert np.isnan(found.lens_summary()[["low", "high"]]).all(axis=None)
    found.plot()[0].figure.draw_without_rendering()


def test_activation_by_kind_of_text(model: NeuronModel, module_facts: FactSet, tmp_path: Path) -> None:
    found = small_prompt_types(model, module_facts, tmp_path / "texts.txt")
    one = type(found)(found.rows[found.rows.fact == found.rows.fact.iloc[0]], found.texts, found.manifest)
    hold_no_interval(firing_tables(one))
    page = one.report(tmp_path).read_text(encoding="utf-8")
    answer = one.answer()
    assert answer is not None
    assert answer.verdict == "unknown"
    assert page.index('data-verdict="unknown"') < page.index("<figure")


def test_a_trace(model: NeuronModel, module_facts: FactSet, tmp_path: Path) -> None:
    found = small_trace(model, module_facts[:1])
    assert "[–]" in "".join(chain.from_iterable(texts_of([found.summary_text()])))
    assert "[–]" in found.report(tmp_path).read_text(encoding="utf-8")
