"""Paired differences, permutation and equivalence tests on facts nested in relations, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.statistics.means import RESAMPLES, Array, mean_interval

EXACT_UP_TO = 13
"""With so many relations or fewer all sign flips are tried (8,192), with more a random sample of them."""


@dataclass(frozen=True)
class Difference:
    """A mean difference over facts (within relations, then over relations).

    Attributes
    ----------
    mean, low, high : the difference and its 95 % bootstrap interval; of one fact there is none.
    n, relations : facts and relations it rests on.
    p : two-sided, of `sign_flip_test`.
    """

    mean: float
    low: float
    high: float
    n: int
    relations: int
    p: float


def paired_difference(first: Array, second: Array, relations: Sequence[str], seed: int = 0) -> Difference:
    """``first − second`` on the same facts.

    Parameters
    ----------
    first, second : ``[fact]``.
    relations : relation of each fact.
    seed : of resamples and sign flips.

    Raises
    ------
    ConfigError : lengths differ, or there is no fact.
    """
    values = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if not len(values) or len(values) != len(relations):
        raise ConfigError(f"{len(values)} differences of {len(relations)} facts; expected one each, and at least one.")
    mean, low, high = mean_interval(values, relations, seed)
    p = sign_flip_test(values, relations, seed)
    return Difference(mean, low, high, len(values), len(set(relations)), p)


def relation_means(values: Array, relations: Sequence[str]) -> Array:
    """Mean of each relation's facts, ``[relation]``: facts of one relation are not independent of one another.

    >>> relation_means(np.array([1.0, 3.0, 5.0]), ["a", "a", "b"]).tolist()
    [2.0, 5.0]
    """
    names = np.asarray(relations, dtype=object)
    return np.array([np.mean(values[names == name]) for name in dict.fromkeys(relations)])


def sign_flip_test(values: Array, relations: Sequence[str], seed: int = 0, flips: int = RESAMPLES) -> float:
    """Two-sided p of "the mean is zero": how often flipping the sign of whole relations gives as large a mean.

    Exact for few relations; else the flips are a random sample and the observed signs count as one of them.

    >>> sign_flip_test(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"])  # 2 of 8 sign patterns
    0.25
    """
    means = relation_means(np.asarray(values, dtype=float), relations)
    n = len(means)
    observed = abs(means.mean())
    # Rounding must not make a pattern fall short of the very same pattern observed.
    reached = observed * (1 - 1e-12)
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ means) / n >= reached))
    signs = np.random.default_rng(seed).choice([-1, 1], size=(flips, n))
    return float((1 + np.sum(np.abs(signs @ means) / n >= reached)) / (1 + flips))


def least_p(relations: int) -> float:
    """Smallest p that `sign_flip_test` can give: the observed signs and their opposites of ``2^relations`` patterns.

    >>> least_p(2), least_p(6)
    (0.5, 0.03125)
    """
    exact = 2.0 ** (1 - relations)
    return exact if relations <= EXACT_UP_TO else max(exact, 1 / (1 + RESAMPLES))


def can_decide(relations: int, comparisons: int, level: float) -> bool:
    """Whether Holm's correction of so many sign-flip tests can fall to the level at all, whatever was measured."""
    return comparisons * least_p(relations) <= level


def relations_needed(comparisons: int, level: float) -> int:
    """Fewest relations with which one of so many sign-flip tests, corrected by Holm, can fall to the level.

    ``comparisons · 2/2^r ≤ level``

    >>> relations_needed(1, 0.05), relations_needed(2, 0.05)
    (6, 7)
    """
    relations = 1
    while comparisons * 2.0 ** (1 - relations) > level:
        relations += 1
    return relations


def equivalence_test(values: Array, relations: Sequence[str], margin: float) -> float:
    """p of "the mean lies outside ±margin": two one-sided t tests over relations (TOST); small = it did not move.

    Parameters
    ----------
    margin : largest mean that still counts as no effect.

    Raises
    ------
    ConfigError : the margin is not positive.
    """
    if not margin > 0:
        raise ConfigError(f"margin is {margin}; expected a positive number.")
    means = relation_means(np.asarray(values, dtype=float), relations)
    n = len(means)
    if n < 2:
        return 1.0  # one relation says nothing about others
    error = means.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return float(not abs(means.mean()) < margin)
    distance = margin - abs(means.mean())
    return float(stats.t.sf(distance / error, n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values that keep the chance of any false claim among them below the level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        own = min(1.0, (len(p_values) - rank) * p_values[index])
        highest = max(highest, own)  # never below the correction of a smaller p
        corrected[index] = highest
    return [float(p) for p in corrected]
