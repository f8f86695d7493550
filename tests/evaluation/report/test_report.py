"""Tables, figures and the HTML report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from markupsafe import escape
from matplotlib.figure import Figure

from kn_attrib import FactSet, NeuronModel, compare
from kn_attrib.cli.publish import publish
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation import Comparison, answers
from kn_attrib.evaluation.records.pages import save_figures, svg
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.report.bars import bars, far_groups
from kn_attrib.evaluation.report.figures import FIGURES, figures_of


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
    text = svg(figure_of(figures_of(comparison)[name]()), name)
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
    charts = [answer for answer in answers(comparison) if answer.panels]
    assert len(charts) >= 3
    assert html.count("<svg") == len(FIGURES) + 2 + len(charts)
    assert "Silencing all feed-forward neurons" in html
    mean, interval = str(comparison.table().loc["integrated_gradients", "target"]).split(" [")
    assert f"<td>{mean} <br><small>[{interval}</small></td>" in html
    assert len(set(re.findall(r'\bid="([^"]+)"', html))) == len(re.findall(r'\bid="', html))


def test_answers_come_first_short_then_drawn_then_in_full(comparison: Comparison, tmp_path: Path) -> None:
    html = comparison.report(tmp_path / "report.html").read_text(encoding="utf-8")
    place = 0
    for i, answer in enumerate(answers(comparison), 1):
        # Lines may be the same for several questions, so each is looked for behind what came before it.
        place = html.index(f"<h3>{escape(answer.question)}</h3>", place)
        place = html.index(f"<strong>{escape(answer.short)}</strong>", place)
        place = html.index(f'<figure id="answer-{i}">', place) if answer.panels else place
        place = html.index(f"<p>{escape(answer.answer)}</p>", place)
    assert 0 < place < html.index("<table>")
    assert html.count('<section class="answer" data-verdict="unknown">') == sum(
        answer.verdict == "unknown" for answer in answers(comparison)
    )


def test_the_terminal_says_the_short_line_first(
    comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(comparison, tmp_path)
    printed = capsys.readouterr().out
    assert len(answers(comparison)) == 5
    for answer in answers(comparison):
        assert f"{answer.question}\n  {answer.short}\n    {answer.answer}\n" in printed


def group_rows(**groups: tuple[float, float, float]) -> pd.DataFrame:
    rows: pd.DataFrame = pd.DataFrame(
        [{"group": group, "mean": mean, "low": low, "high": high} for group, (mean, low, high) in groups.items()]
    )
    return rows


TARGET = (-0.5, -0.6, -0.4)


@pytest.mark.parametrize(
    ("groups", "far"),
    [
        ({"target": TARGET, "plain_text": (0.07, -0.06, 0.3)}, ["plain_text"]),
        ({"target": TARGET, "plain_text": (0.07, -0.06, 0.1)}, []),  # would widen the axis by a sixth
        ({"target": TARGET, "plain_text": (0.5, 0.45, 0.55)}, []),  # far, but its bar is what is to be seen
        ({"target": (0.1, -3.0, 5.0), "plain_text": (0.0, 0.0, 0.0)}, []),  # the facts are what the others refer to
        (
            {"target": TARGET, "same_object": (0.1, -0.1, 0.9), "plain_text": (1.0, -2.0, 9.0)},
            ["same_object", "plain_text"],
        ),
        ({"plain_text": (0.1, -1.0, 2.0)}, []),  # alone there is nothing that it dwarfs
    ],
)
def test_groups_that_dwarf_the_others_stand_apart(
    groups: dict[str, tuple[float, float, float]], far: list[str]
) -> None:
    assert far_groups(group_rows(**groups)) == far


def test_an_axis_of_its_own_is_said(comparison: Comparison) -> None:
    rows = comparison.rows.copy()
    plain = (rows.group == "plain_text") & (rows.metric == "relative_change")
    # One fact of many explodes, as where a word was hardly expected.
    rows.loc[plain, "value"] = (rows[plain].fact == rows.fact.iloc[0]).map({True: 50.0, False: -10.0})
    titles = [axes.get_title() for axes in figure_of(bars(replace(comparison, rows=rows), "suppress")).axes]
    assert titles == ["Each method's refined neurons: suppress", "plain words:\nan axis of its own"]


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


def test_report_says_when_no_claim_can_be_made(comparison: Comparison, tmp_path: Path) -> None:
    rows = comparison.rows.copy()
    rows.loc[(rows.method == "whole_ffn") & (rows.metric == "relative_change"), "value"] = -0.1
    few = replace(comparison, rows=rows)
    assert not few.claim_possible
    assert "changes p(answer) by −10.0 % [−10.0, −10.0] (n = 4)" in few.verdict()
    assert few.verdict().endswith("is open: too few facts to tell (n = 4 of 1 relation).")
    page = few.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count('data-verdict="unknown"') == 5


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
        figure = Figure(figsize=(3, 2))
        figure.subplots().plot([0, 1], [1, 0])
        save_figures({"line": figure}, tmp_path / name)
    for ending in ("svg", "png"):
        first, second = (tmp_path / name / f"line.{ending}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
