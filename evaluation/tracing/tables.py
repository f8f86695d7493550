"""What is printed of a trace."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.evaluation.report.answer import level, points_text
from kn_attrib.evaluation.tracing.answer import answer_of, number, pairs
from kn_attrib.evaluation.tracing.roles import ROLES
from kn_attrib.evaluation.tracing.trace_rows import TRACED, TraceRows


def peaks(result: TraceRows) -> pd.DataFrame:
    """The highest average indirect effect of each kind and role, in points, and its layer, as text."""
    lines = {}
    for kind in result.kinds:
        effects = result.average_effects(kind)
        best = effects.loc[effects.groupby("role", sort=False)["mean"].idxmax()].set_index("role")
        lines[kind] = {
            ROLES[role]: f"{_points(*best.loc[role, ['mean', 'low', 'high']])} (L{best.layer[role]})"
            for role in ROLES
            if role in best.index
        }
    table: pd.DataFrame = pd.DataFrame(lines).T.rename_axis("restored").fillna("–")
    return table


def _points(mean: float, low: float, high: float) -> str:
    return points_text(mean, low, high).replace(" points", "")


def correlations(result: TraceRows) -> pd.DataFrame:
    """Tracing's feed-forward effects against what each layer's neurons are, as text."""
    lines = [
        {
            "compared with": pair.name,
            "at the": ROLES[pair.role],
            "over layers": number(pair.over_layers),
            "over facts": number(pair.over_facts),
            "peaks": f"L{pair.traced_peak}, L{pair.peak}",
        }
        for pair in pairs(result)
    ]
    table: pd.DataFrame = pd.DataFrame(lines).set_index("compared with")
    return table


def trace_tables(result: TraceRows) -> Iterator[TitledTable]:
    """What is printed: the answer, then `tables_on_page`."""
    answer = answer_of(result) if result.traced else None
    if answer is not None:
        yield TitledTable(f"{answer.question} {answer.answer}")
    yield from tables_on_page(result)


def tables_on_page(result: TraceRows) -> Iterator[TitledTable]:
    """What was left out, total effects, peaks, and correlations."""
    m = result.manifest
    left_out = {status: n for status, n in m["prompts"].items() if status != TRACED}
    if left_out:
        counts = ", ".join(f"{status}: {n}" for status, n in left_out.items())
        names = f" Facts without any other text: {', '.join(m['not_traced'])}." if m["not_traced"] else ""
        yield TitledTable(f"Texts that were not traced ({counts}).{names}")
    if not result.traced:
        yield TitledTable("No text was answered rightly: nothing was traced.")
        return
    total = result.total_effects
    clean, corrupted, effect = (
        total.loc[name, ["mean", "low", "high"]] for name in ("p_clean", "p_corrupted", "total_effect")
    )
    n = int(total.n.iloc[0])
    yield TitledTable(
        f"{m['model']['name']}: p(answer) goes from {level(*clean)} to {level(*corrupted)} when the subject is "
        f"corrupted; it falls by {points_text(*effect)} (total effect; n = {n} fact{'' if n == 1 else 's'}, mean "
        "[95 % interval])."
    )
    window = f"windows of {m['window']} layers for ffn and attention"
    yield TitledTable(
        f"Highest average indirect effect on p(answer), in points, and its layer; {window}", peaks(result)
    )
    if pairs(result):
        title = "Feed-forward effects of tracing against each layer's neurons: correlations [95 % interval over facts]"
        yield TitledTable(title, correlations(result))
