"""The answer to what tracing predicts: on its page first, never from few facts; one fact has no interval."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import escape

from kn_attrib import FactSet, NeuronModel
from kn_attrib.evaluation import Trace
from kn_attrib.evaluation.statistics.sample import LEAST_RELATIONS
from kn_attrib.evaluation.tracing.answer import answer_of, pairs
from kn_attrib.evaluation.tracing.tables import peaks, trace_tables
from small_results import METHODS, small_trace


@pytest.fixture(scope="module")
def found(session_load_tiny: Callable[..., NeuronModel], module_facts: FactSet) -> Trace:
    return small_trace(session_load_tiny("causal"), module_facts)


def many(found: Trace) -> Trace:
    """The same facts over and over, under other names, each time of another relation."""
    parts = [
        found.rows.assign(fact=found.rows.fact + f"-{number}", relation=f"r{number}")
        for number in range(LEAST_RELATIONS)
    ]
    return replace(found, rows=pd.concat(parts, ignore_index=True))


def test_the_answer_weighs_four_correlations(found: Trace) -> None:
    of_many = many(found)
    answer = answer_of(of_many)
    assert answer is not None
    main = [pair for pair in pairs(of_many) if pair.method == "all neurons"]
    above = [c.low > 0 for pair in main for c in (pair.over_layers, pair.over_facts)]
    assert answer.verdict == ("yes" if all(above) else "mixed" if any(above) else "no")
    assert "(n = 20 of 5 relations)" in answer.short
    assert len(pairs(found)) == 2 * (1 + 3 * len(METHODS))
    # Neurons that are what tracing says: the answer is yes.
    yes = answer_of(like_tracing(of_many))
    assert yes is not None
    assert yes.verdict == "yes"
    assert "r = 1.00 [1.00, 1.00]" in yes.answer


def like_tracing(found: Trace) -> Trace:
    """With neurons that are what tracing says of the answer position."""
    rows = found.rows.copy()
    traced = rows[(rows.method == "tracing") & (rows.kind == "ffn")]
    like = traced[traced.role == "answer"].set_index(["fact", "layer"]).value
    for changed in (rows.kind.eq("ffn") & rows.role.eq("last_subject"), rows.method.eq("all neurons")):
        at = pd.MultiIndex.from_frame(rows.loc[changed, ["fact", "layer"]])
        rows.loc[changed, "value"] = like.reindex(at).to_numpy()
    return replace(found, rows=rows)


def test_few_facts_are_no_answer(found: Trace) -> None:
    for trace_of, n in ((found, 4), (only(found, 1), 1)):
        answer = answer_of(like_tracing(trace_of))
        assert answer is not None
        assert answer.verdict == "unknown"
        assert answer.short.startswith(
            f"Not known: too few facts to tell (n = {n} of 1 relation); answer position r = 1."
        )
        assert "Of the methods" not in answer.answer
        if n == 1:
            assert "r = 1.00 [–] over layers" in answer.short


def only(found: Trace, facts: int) -> Trace:
    """The first facts."""
    frames = {name: getattr(found, name) for name in Trace.frames}
    return replace(found, **{name: f[f.fact.isin(found.traced[:facts])] for name, f in frames.items()})


def test_one_fact_has_levels_without_signs_and_no_intervals(found: Trace, recwarn: pytest.WarningsRecorder) -> None:
    one = only(found, 1)
    titles = [title for title, _ in trace_tables(one)]
    assert re.search(r"p\(answer\) goes from \d+\.\d % \[–\] to \d+\.\d % \[–\] when", titles[1])
    assert re.search(r"it falls by −?\d+\.\d points \[–\] \(total effect", titles[1])
    assert all(re.fullmatch(r"(0\.0|[−\d.]+) \[–\] \(L\d\)", cell) for cell in peaks(one).loc["hidden"])
    for kind in one.kinds:
        axes: Any = one.plot(kind=kind)
        axes.figure.draw_without_rendering()
    assert not recwarn.list


def test_lines_that_lie_on_one_another_are_both_seen(found: Trace) -> None:
    rows = found.rows.copy()
    last = rows.role == "last_subject"
    rows = pd.concat([rows[rows.role != "first_subject"], rows[last].assign(role="first_subject")])
    axes: Any = replace(found, rows=rows).plot(kind="hidden")
    styles = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert styles["first subject token"] == "-"
    assert styles["last subject token"] == "--"
    order = list(styles)
    assert order.index("first subject token") < order.index("last subject token")  # the broken one on top


def test_the_page_begins_with_the_answer(found: Trace, tmp_path: Path) -> None:
    page = many(found).report(tmp_path).read_text(encoding="utf-8")
    answer = many(found).answer()
    assert answer is not None
    assert page.count(str(escape(answer.answer))) == 1
    assert page.index(str(escape(answer.short))) < page.index(str(escape(answer.answer))) < page.index("<figure")
    assert f'data-verdict="{answer.verdict}"' in page
