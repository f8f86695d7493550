"""Agreement of methods, and neurons that facts share, read off a comparison."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from kn_attrib.evaluation.report.comparison_rows import ComparisonRows, rows_with
from kn_attrib.evaluation.statistics.means import summarise_facts
from kn_attrib.evaluation.vocabulary import CONSENSUS


def intersections(comparison: ComparisonRows) -> pd.DataFrame:
    """Neurons that the refined sets of two facts share: mean number within a relation and across relations, by method.

    Reference
    ---------
    Dai et al. 2022, table 3.
    """
    used = rows_with(comparison.facts, status="used")
    relation = dict(zip(used.fact, used.relation, strict=True))
    rows = {}
    for method in comparison.methods:
        refined = rows_with(comparison.neurons, selection="refined", method=method)
        # Built-in sets: there are very many pairs of facts.
        sets: dict[str, set[tuple[int, int]]] = {fact: set() for fact in relation}
        for fact, part in refined.groupby("fact"):
            sets[str(fact)] = set(zip(part.layer, part.neuron, strict=True))
        within: list[int] = []
        across: list[int] = []
        for a, b in itertools.combinations(relation, 2):
            shared = within if relation[a] == relation[b] else across
            shared.append(len(sets[a] & sets[b]))
        rows[method] = {
            "neurons": float(np.mean([len(sets[fact]) for fact in relation])),
            "shared within a relation": float(np.mean(within)) if within else np.nan,
            "shared across relations": float(np.mean(across)) if across else np.nan,
        }
    frame: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index")
    return frame


def agreement_table(comparison: ComparisonRows) -> pd.DataFrame:
    """Each method's agreement with the consensus of the others: mean Spearman, 95 % interval, facts."""
    own = rows_with(comparison.agreement, other=CONSENSUS)
    wide = own.pivot_table(index=["fact", "relation"], columns="method", values="value", sort=False)
    found = summarise_facts(wide, comparison.seed)
    ordered: pd.DataFrame = found.reindex([m for m in comparison.methods if m in found.index])
    return ordered
