"""Correlations of curves that were measured on the same facts, with intervals over facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kn_attrib.evaluation.statistics.means import RESAMPLES, Array, mean_weights, percentile_interval, resampled_weights


class Correlation(NamedTuple):
    """Pearson's correlation with its 95 % bootstrap interval.

    Not a number where one side does not vary; of one fact there is no interval.
    """

    value: float
    low: float
    high: float


def of_mean_curves(first: Array, second: Array, relations: Sequence[str], seed: int = 0) -> Correlation:
    """Correlation over points of the mean curves of two quantities.

    Parameters
    ----------
    first, second : ``[fact, point]``.
    relations : relation of each fact; means are within relations, then over relations.
    seed : of the bootstrap, which resamples relations, then facts.
    """

    def correlation(weights: Array) -> Array:
        x, y = weights @ first, weights @ second
        x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        return _ratio((x * y).sum(1), (x * x).sum(1), (y * y).sum(1))

    return _with_interval(correlation, relations, seed)


def of_deviations(first: Array, second: Array, relations: Sequence[str], seed: int = 0) -> Correlation:
    """Correlation over facts at the same point: of what each fact has there beyond the mean over facts.

    All points count together, each with its own variance: ``Σ_l cov_l(x, y) / √(Σ_l var_l(x) Σ_l var_l(y))``.
    Parameters as of `of_mean_curves`.
    """

    def correlation(weights: Array) -> Array:
        def covariance(x: Array, y: Array) -> Array:
            found: Array = ((weights @ (x * y)) - (weights @ x) * (weights @ y)).sum(1)
            return found

        return _ratio(covariance(first, second), covariance(first, first), covariance(second, second))

    return _with_interval(correlation, relations, seed)


def _ratio(both: Array, first: Array, second: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        # What is left of a variance by rounding is none.
        scale = np.sqrt(np.clip(first, 0, None) * np.clip(second, 0, None))
        found: Array = np.where(scale > 1e-14, both / scale, np.nan)
    return found


def _with_interval(correlation: Callable[[Array], Array], relations: Sequence[str], seed: int) -> Correlation:
    value = float(correlation(mean_weights(relations)[None])[0])
    if np.isnan(value):
        return Correlation(np.nan, np.nan, np.nan)
    some = correlation(resampled_weights(relations, RESAMPLES, seed))
    low, high = percentile_interval(some, len(relations))
    return Correlation(value, float(low), float(high))
