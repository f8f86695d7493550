"""What is printed of activations by kind of text."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kn_attrib.evaluation.firing.activations import ACTIVATION, OF, OTHERS, OWN, STANDARDISED
from kn_attrib.evaluation.firing.answer import answer_of
from kn_attrib.evaluation.firing.groups import DESIGNS
from kn_attrib.evaluation.firing.rows import CONTRASTS, LESS, FiringRows
from kn_attrib.evaluation.records.text import TitledTable, interval_text

NAMES = {OWN: "", OTHERS: " (same layers)", LESS: " (more than same layers)"}

SHOWN = 10
"""Facts without texts that are named."""


def firing_tables(result: FiringRows) -> Iterator[TitledTable]:
    """What is printed: the answer, then `tables_on_page`."""
    answer = answer_of(result)
    if answer is not None:
        yield TitledTable(f"{answer.question} {answer.answer}")
    yield from tables_on_page(result)


def tables_on_page(result: FiringRows) -> Iterator[TitledTable]:
    """Of each design activations by group, the contrasts between groups, and what the groups hold."""
    for design in _designs(result):
        n = result.rows[result.rows.design == design].fact.nunique()
        title = f"{design} design, {n} facts: activation in standard deviations over random words [95 % interval]"
        yield TitledTable(title.capitalize(), activations_table(result, design, STANDARDISED))
        yield TitledTable(
            f"The same as raw activations, {design} design", activations_table(result, design, ACTIVATION)
        )
        yield TitledTable(f"Contrasts, {design} design: {contrasts_said(design)}", contrasts_table(result, design))
        yield TitledTable(f"What the groups hold, {design} design", texts_table(result, design))
    without = result.manifest["without_texts"]
    if without:
        more = ", …" if len(without) > SHOWN else ""
        yield TitledTable(f"{len(without)} facts have no texts of their own: {', '.join(without[:SHOWN])}{more}")


def _designs(result: FiringRows) -> list[str]:
    present = set(result.rows.design)
    return [design for design in DESIGNS if design in present]


def contrasts_said(design: str) -> str:
    """What the contrasts of a design subtract."""
    said = []
    for name, (first, *rest) in CONTRASTS[design].items():
        less = " − ".join(rest) if len(rest) == 1 else f"{rest[0]} − {rest[1]} + {rest[2]}"
        said.append(f"{name}: {first} − {less}")
    return "; ".join(said)


def activations_table(result: FiringRows, design: str, metric: str) -> pd.DataFrame:
    """Methods (their neurons, and the others of the same layers) × groups, as text."""
    found = result.summary
    some = found[(found.design == design) & (found.metric == metric)]
    return _wide(some, "group", [group for group in DESIGNS[design] if group in set(some.group)], result.methods, OF)


def contrasts_table(result: FiringRows, design: str) -> pd.DataFrame:
    """Methods × contrasts, as text."""
    found = result.contrasts
    some = found[found.design == design]
    names = [name for name in CONTRASTS[design] if name in set(some.contrast)]
    return _wide(some, "contrast", names, result.methods, NAMES)


def _wide(some: pd.DataFrame, column: str, names: list[str], methods: list[str], of: dict[str, str]) -> pd.DataFrame:
    bounds = zip(some["mean"], some.low, some.high, strict=True)
    text = [interval_text(*bound, percent=False) for bound in bounds]
    wide = some.assign(text=text).pivot_table(
        index=["method", "neurons"], columns=column, values="text", aggfunc="first", sort=False
    )
    order = [(method, neurons) for method in methods for neurons in of if (method, neurons) in wide.index]
    table: pd.DataFrame = wide.loc[order, names].rename_axis(columns=None)
    table.index = pd.Index([f"{method}{NAMES[neurons]}" for method, neurons in order], name="method")
    filled: pd.DataFrame = table.fillna("–")
    return filled


def texts_table(result: FiringRows, design: str) -> pd.DataFrame:
    """Groups: facts, texts, words, and an example."""
    some = result.texts[result.texts.design == design]
    lines = {}
    for group, said in DESIGNS[design].items():
        own = some[some.group == group]
        if not own.empty:
            words = (own.words * own.n).sum() / own.n.sum()
            lines[group] = {
                "texts": said,
                "facts": f"{own.fact.nunique():,}",
                "n": f"{own.n.sum():,}",
                "words": f"{words:.1f}",
                "example": own.example.iloc[0],
            }
    table: pd.DataFrame = pd.DataFrame(lines).T.rename_axis("group")
    return table
