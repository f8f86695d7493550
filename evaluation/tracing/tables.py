"""What is printed of a trace."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.evaluation.report.answer import percent
from kn_attrib.evaluation.tracing.answer import answer_of, number, pairs
from kn_attrib.evaluation.tracing.roles import ROLES
from kn_attrib.evaluation.tracing.trace_rows import TRACED, TraceRows


def peaks(result: TraceRows) -> pd.DataFrame:
    """The highest average indirect effect of each kind and role, and its layer, as text."""
    lines = {}
    for kind in result.kinds:
        effects = result.average_effects(kind)
        best = effects.loc[effects.groupby("role", sort=False)["mean"].idxmax()].set_index("role")
        lines[kind] = {
            ROLES[role]: f"{percent(*best.loc[role, ['mean', 'low', 'high']])} (L{best.layer[role]})"
            for role in ROLES
            if role in best.index
        }
    table: pd.DataFrame = pd.DataFrame(lines).T.rename_axis("restored").fillna("–")
    return table


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
    """Total effects, peaks, correlations, the answer, and what was left out."""
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
    text = {name: percent(*total.loc[name, ["mean", "low", "high"]]) for name in total.index}
    n = int(total.n.iloc[0])
    yield TitledTable(
        f"{m['model']['name']}: p(answer) falls from {text['p_clean']} to {text['p_corrupted']} when the subject is "
        f"corrupted, by {text['total_effect']} (total effect; n = {n} facts, mean [95 % interval])."
    )
    window = f"windows of {m['window']} layers for ffn and attention"
    yield TitledTable(f"Highest average indirect effect on p(answer) and its layer; {window}", peaks(result))
    answer = answer_of(result)
    if answer is not None:
        yield TitledTable(f"{answer.question} {answer.answer}")
        title = "Feed-forward effects of tracing against each layer's neurons: correlations [95 % interval over facts]"
        yield TitledTable(title, correlations(result))
