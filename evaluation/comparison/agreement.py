"""Do methods name the same neurons? Rank correlations of their scores, fact by fact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from kn_attrib.evaluation.comparison.score_stage import MethodScores
from kn_attrib.evaluation.statistics.means import Array
from kn_attrib.evaluation.vocabulary import AGREEMENT, CONSENSUS


def agreement(
    scored: Mapping[str, MethodScores], relations: Mapping[str, str], units: Mapping[str, str]
) -> pd.DataFrame:
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
        if len(methods) < 2:
            continue
        for fact in next(iter(scored.values())).means:
            ranks = {m: _ranks(scored[m].means[fact].flatten().numpy()) for m in methods}
            rows += [(fact, relations[fact], *found) for found in _correlations(ranks)]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=AGREEMENT)
    return frame


def _correlations(ranks: Mapping[str, Array]) -> Iterator[tuple[str, str, float]]:
    """Of one fact: every two methods, then each method and the consensus of the others."""
    for a, b in itertools.combinations(ranks, 2):
        yield a, b, _correlation(ranks[a], ranks[b])
    total = np.sum(list(ranks.values()), axis=0)
    for method, own in ranks.items():
        yield method, CONSENSUS, _correlation(own, _ranks(total - own))


def _ranks(values: Array) -> Array:
    return np.asarray(stats.rankdata(values), dtype=np.float64)


def _correlation(a: Array, b: Array) -> float:
    if a.std() == 0 or b.std() == 0:
        return float("nan")  # a method that gives every neuron the same score
    return float(np.corrcoef(a, b)[0, 1])
