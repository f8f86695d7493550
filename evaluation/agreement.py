"""Do methods name the same neurons, and does one method name the same neurons for different facts?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from kn_attrib.evaluation.comparison import AGREEMENT, Comparison
from kn_attrib.evaluation.scored import Scored
from kn_attrib.evaluation.statistics import Array, summarise

CONSENSUS = "consensus"


def agreement(scored: Mapping[str, Scored], relations: Mapping[str, str], units: Mapping[str, str]) -> pd.DataFrame:
    """Spearman correlation of two methods' scores of a fact's neurons: ``fact, relation, method, other, value``.

    ``other`` may be ``"consensus"``: the mean rank of the neurons over all *other* methods of the same units (Borda).
    Agreement is not correctness.

    Parameters
    ----------
    scored : label -> scores.
    relations : fact -> relation.
    units : label -> what was scored; different things are not compared.
    """
    rows = []
    for kind in dict.fromkeys(units.values()):
        methods = [m for m in scored if units[m] == kind]
        for fact in next(iter(scored.values())).means if len(methods) > 1 else ():
            ranks = {m: _ranks(scored[m].means[fact].flatten().numpy()) for m in methods}
            total = np.sum(list(ranks.values()), axis=0)
            for a, b in itertools.combinations(methods, 2):
                rows.append((fact, relations[fact], a, b, _correlation(ranks[a], ranks[b])))
            rows += [
                (fact, relations[fact], m, CONSENSUS, _correlation(ranks[m], _ranks(total - ranks[m]))) for m in methods
            ]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=AGREEMENT)
    return frame


def _ranks(values: Array) -> Array:
    return np.asarray(stats.rankdata(values), dtype=np.float64)


def _correlation(a: Array, b: Array) -> float:
    if a.std() == 0 or b.std() == 0:
        return float("nan")  # a method that gives every neuron the same score
    return float(np.corrcoef(a, b)[0, 1])


def intersections(comparison: Comparison) -> pd.DataFrame:
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


def agreement_table(comparison: Comparison) -> pd.DataFrame:
    """Each method's agreement with the consensus of the others: mean Spearman, 95 % interval, facts."""
    own: pd.DataFrame = comparison.agreement[comparison.agreement.other == CONSENSUS]
    if not len(own):
        return own
    wide = own.pivot_table(index=["fact", "relation"], columns="method", values="value", sort=False)
    relations = wide.index.get_level_values("relation").to_series().reset_index(drop=True)
    found = summarise(wide.reset_index(drop=True), relations, seed=comparison.manifest["settings"]["seed"])
    ordered: pd.DataFrame = found.reindex([m for m in comparison.methods if m in found.index])
    return ordered
