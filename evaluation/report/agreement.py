"""Agreement of methods, and neurons that facts share, read off a comparison."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.statistics.means import summarise_facts
from kn_attrib.evaluation.vocabulary import CONSENSUS


def intersections(comparison: ComparisonRows) -> pd.DataFrame:
    """Neurons that the refined sets of two facts share: mean number within a relation and across relations, by method.

    Reference
    ---------
    Dai et al. 2022, table 3.
    """
    refined = comparison.neurons[comparison.neurons.selection == "refined"]
    used = comparison.facts[comparison.facts.status == "used"]
    relation = dict(zip(used.fact, used.relation, strict=True))
    rows = {}
    for method in comparison.methods:
        own = refined[refined.method == method]
        sets = {fact: set(zip(p.layer, p.neuron, strict=True)) for fact, p in own.groupby("fact")}
        shared: dict[bool, list[int]] = {True: [], False: []}
        for a, b in itertools.combinations(relation, 2):
            shared[relation[a] == relation[b]].append(len(sets.get(a, set()) & sets.get(b, set())))
        rows[method] = {
            "neurons": float(np.mean([len(sets.get(fact, ())) for fact in relation])),
            "shared within a relation": float(np.mean(shared[True])) if shared[True] else np.nan,
            "shared across relations": float(np.mean(shared[False])) if shared[False] else np.nan,
        }
    frame: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index")
    return frame


def agreement_table(comparison: ComparisonRows) -> pd.DataFrame:
    """Each method's agreement with the consensus of the others: mean Spearman, 95 % interval, facts."""
    own: pd.DataFrame = comparison.agreement[comparison.agreement.other == CONSENSUS]
    if not len(own):
        return own
    wide = own.pivot_table(index=["fact", "relation"], columns="method", values="value", sort=False)
    found = summarise_facts(wide, comparison.seed)
    ordered: pd.DataFrame = found.reindex([m for m in comparison.methods if m in found.index])
    return ordered
