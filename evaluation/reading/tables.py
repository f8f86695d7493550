"""Tables of a reading, as they are printed and stand on its page."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kn_attrib.evaluation.reading.rows import ReadingRows
from kn_attrib.evaluation.records.text import TitledTable

METRICS = {
    "answer_in_words": (True, "answer among their words"),
    "answer_log_rank": (False, "log10 of its rank"),
    "answer_follows": (True, "answer follows their contexts"),
    "subject_in_context": (True, "subject in their contexts"),
}
"""Metric -> whether in percent, and its column's title."""


def reading_tables(result: ReadingRows) -> Iterator[TitledTable]:
    """What is printed of a reading, and stands on its page."""
    manifest = result.manifest
    name, n = manifest["model"]["name"], manifest["contexts"]
    own = agreement_table(result.agreement)
    what = f"{name}: share of a layer's neurons that write what follows the context that activates them most, in %"
    yield TitledTable(f"{what} ({n:,} contexts kept) [95 % interval]", own)
    yield TitledTable(
        "The same by the probability of the value's most likely word, all layers", calibration_table(result)
    )
    if not result.rows.empty:
        budget = manifest["settings"]["budget"]
        title = f"Of each fact's {budget} neurons by each method: mean over facts [95 % interval]"
        yield TitledTable(title, methods_table(result))
    if manifest["asked"]:
        yield TitledTable("Neurons asked for", result.further())
    for fact in result.neurons.fact.unique():
        yield TitledTable(f"{fact}: its neurons, what they fire on, what they write", result.shown(fact))


def methods_table(result: ReadingRows) -> pd.DataFrame:
    """Methods × what their neurons write and fire on."""
    parts = {
        title: result.text_table("metric", percent, metric=metric)[metric].str.replace("+", "", regex=False)
        for metric, (percent, title) in METRICS.items()
        if (result.rows.metric == metric).any()
    }
    table: pd.DataFrame = pd.DataFrame(parts)
    return table


def agreement_table(found: pd.DataFrame, by: str = "layer") -> pd.DataFrame:
    """Layers, or groups of them, × measures, own and shuffled values, in percent with intervals as text.

    Parameters
    ----------
    found : of `agreement_by_layer` or, with ``by="layers"``, `agreement_of_groups`.
    """
    text = [_percent(*row) for row in zip(found["share"], found.low, found.high, strict=True)]
    columns = [
        f"{measure.replace('_', ' ')}, {of} values" for measure, of in zip(found.measure, found["values"], strict=True)
    ]
    table = found.assign(text=text, column=columns).pivot_table(
        index=by, columns="column", values="text", aggfunc="first", sort=False
    )
    counts = found[found["values"] == "own"].groupby(by, sort=False).n.max()
    table.insert(0, "neurons", counts.map("{:,}".format))
    shown: pd.DataFrame = table.rename_axis(columns=None)
    return shown


def calibration_table(result: ReadingRows) -> pd.DataFrame:
    """Agreement by probability, in percent with intervals as text."""
    found = result.calibration
    index = pd.Index([f"{100 * a:g} to {100 * b:g} %" for a, b in zip(found.above, found.up_to, strict=True)])
    table: pd.DataFrame = pd.DataFrame(
        {
            "neurons": found.n.map("{:,.0f}".format).to_numpy(),
            "mean probability": [("–" if pd.isna(p) else f"{100 * p:.1f} %") for p in found.probability],
            "agreement": [_percent(*row) for row in zip(found["share"], found.low, found.high, strict=True)],
        },
        index=index.rename("probability"),
    )
    return table


def _percent(share: float, low: float, high: float) -> str:
    if pd.isna(share):
        return "–"
    return f"{100 * share:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
