"""Tables, figures and the HTML report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from kn_attrib import FactSet, NeuronModel, compare
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.records.pages import save_figures, svg
from kn_attrib.evaluation.records.style import new_figure
from kn_attrib.evaluation.report.figures import FIGURES


@pytest.fixture(scope="module")
def comparison(session_load_tiny: Callable[..., NeuronModel], module_facts: FactSet) -> Comparison:
    return compare(
        session_load_tiny("masked", "float32"), module_facts, ["integrated_gradients", "random"], budgets=(1, 5),
        keep=("unknown",), progress=False,
    )  # fmt: skip


def test_table_has_a_row_per_method_and_a_column_per_group(comparison: Comparison) -> None:
    table = comparison.table()
    assert table.index.tolist() == ["integrated_gradients", "random"]
    assert table.columns.tolist() == [
        "neurons", "none", "target", "same_relation", "plain_text", "random", "random_same_layer",
    ]  # fmt: skip  # these facts share no answers and are of one relation
    assert re.fullmatch(r"[+−]\d+\.\d % \[[+−]\d+\.\d, [+−]\d+\.\d\]", str(table.loc["random", "target"]))


def test_table_refuses_what_is_not_there(comparison: Comparison) -> None:
    with pytest.raises(ConfigError, match="unknown selection 'k=7'"):
        comparison.table(selection="k=7")
    with pytest.raises(ConfigError, match=r"unknown metric 'flop'. Did you mean 'flip'"):
        comparison.table(metric="flop")
    with pytest.raises(ConfigError, match=r"unknown figure 'layer'. Did you mean 'layers'"):
        comparison.plot("layer")


@pytest.mark.parametrize("name", ["suppress", "amplify", *FIGURES])
def test_figures_are_well_formed_svg(comparison: Comparison, name: str) -> None:
    text = svg(comparison.plot(name), name)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert 'href="http' not in text
    assert all(f'"{name}-' in m for m in re.findall(r'id="[^"]*"', text))


def test_report_is_self_contained(comparison: Comparison, tmp_path: Path) -> None:
    html = comparison.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("<script>") == 1  # sorts tables
    assert html.count("<script") == 1
    assert not re.search(r"@import|url\((?!#)|fetch\(", html)
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert html.count("<svg") == len(FIGURES) + 2
    assert "Silencing all feed-forward neurons" in html
    assert str(comparison.table().loc["integrated_gradients", "target"]) in html
    assert len(set(re.findall(r'\bid="([^"]+)"', html))) == len(re.findall(r'\bid="', html))


def test_report_escapes_what_users_name(comparison: Comparison, tmp_path: Path) -> None:
    facts = comparison.facts.assign(answer="<script>alert(1)</script>")
    manifest = comparison.manifest | {"model": comparison.manifest["model"] | {"name": "<b>model</b>"}}
    html = replace(comparison, facts=facts, manifest=manifest).report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in html
    assert "<b>model</b>" not in html
    assert "&lt;script&gt;" in html


def test_notebook_html(comparison: Comparison) -> None:
    html = comparison._repr_html_()
    assert "<table>" in html
    assert comparison.verdict().split(" (n")[0] in html


def test_report_says_when_no_claim_can_be_made(comparison: Comparison) -> None:
    rows = comparison.rows.copy()
    whole = (rows.method == "whole_ffn") & (rows.metric == "relative_change")
    rows.loc[whole, "value"] = -0.1
    weak = replace(comparison, rows=rows)
    assert not weak.claim_possible
    assert "no neuron claim can be made" in weak.verdict()
    rows.loc[whole, "value"] = -0.6
    strong = replace(comparison, rows=rows)
    assert strong.claim_possible
    assert "−60.0 % [−60.0, −60.0]" in strong.verdict()


def test_an_interrupted_report_says_so(comparison: Comparison, tmp_path: Path) -> None:
    partial = replace(comparison, manifest=comparison.manifest | {"complete": False})
    assert "Interrupted." in partial.report(tmp_path / "r.html").read_text(encoding="utf-8")


def test_frame_is_flat(comparison: Comparison) -> None:
    frame = comparison.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert {"fact", "method", "selection", "neurons", "intervention", "group", "metric", "value"} <= set(frame)
    frame["value"] = 0
    assert (comparison.rows.value != 0).any()


def test_saved_figures_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("first", "second"):
        figure, axes = new_figure(3, 2)
        axes.plot([0, 1], [1, 0])
        save_figures({"line": figure}, tmp_path / name)
    for ending in ("svg", "png"):
        first, second = (tmp_path / name / f"line.{ending}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
