"""Means over facts with bootstrap intervals that resample relations, then facts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 10_000
"""Of every bootstrap."""
COLUMNS_AT_ONCE = 256
"""Quantities whose resampled means are held at a time."""


def mean_weights(relations: Sequence[str]) -> Array:
    """Weights ``[fact]`` of the mean over relations of the mean over a relation's facts.

    >>> mean_weights(["capital", "capital", "currency"]).tolist()
    [0.25, 0.25, 0.5]
    """
    codes, names = pd.factorize(np.asarray(relations, dtype=object))
    counts = np.bincount(codes, minlength=len(names))
    return np.asarray(1 / (counts[codes] * len(names)), dtype=np.float64)


def resampled_weights(relations: Sequence[str], resamples: int, seed: int) -> Array:
    """Weights ``[resample, fact]`` of hierarchical bootstrap means: relations are drawn, then facts within each draw.

    One set of weights serves every quantity measured on the same facts, so differences between them are paired. It is
    not to be written to.
    """
    return _resampled_weights(tuple(relations), resamples, seed)


@lru_cache(maxsize=2)
def _resampled_weights(relations: tuple[str, ...], resamples: int, seed: int) -> Array:
    # A report asks hundreds of times for the same ones; with thousands of facts they are hundreds of megabytes.
    codes, names = pd.factorize(np.asarray(relations, dtype=object))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = np.zeros((resamples, len(codes)))
    for relation in range(len(names)):
        members = np.flatnonzero(codes == relation)
        n = len(members)
        # Drawing a relation m times and n facts each time is drawing m·n facts, as counts.
        counts = rng.multinomial(drawn[:, relation] * n, np.full(n, 1 / n))
        weights[:, members] = counts / (n * len(names))
    weights.flags.writeable = False
    return weights


def relations_of(frame: pd.DataFrame | pd.Series) -> list[str]:
    """The relation of each row of a frame that is indexed by fact and relation."""
    return [str(relation) for relation in frame.index.get_level_values("relation")]


def percentile_interval(draws: Array, facts: int) -> Array:
    """Ends of the 95 % interval of a resampled quantity.

    They are not numbers for a single fact, of which every resample is the same, nor where resamples are not: a ratio to
    nothing has no interval.

    Parameters
    ----------
    draws : ``[resample]``, or ``[quantity, resample]``.
    facts : how many they were drawn from.

    Returns
    -------
    ``[2]``, or ``[2, quantity]``.
    """
    ends = np.full((2, *draws.shape[:-1]), np.nan)
    if facts > 1:
        missing = np.isnan(draws)
        some = ~missing.all(axis=-1)
        quantile = np.nanquantile if missing.any() else np.quantile  # the first takes far longer
        with np.errstate(invalid="ignore"):  # between two infinities
            ends[:, some] = quantile(draws[some], [0.025, 0.975], axis=-1)
        ends[~np.isfinite(ends)] = np.nan
    return ends


def mean_interval(values: Array, relations: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Mean over facts (within relations, then over relations) and its 95 % bootstrap interval, if any."""
    mean = mean_weights(relations) @ values
    low, high = percentile_interval(resampled_weights(relations, RESAMPLES, seed) @ values, len(values))
    return float(mean), float(low), float(high)


def ratio_interval(part: Array, whole: Array, relations: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """A ratio of means on the same facts and its 95 % interval, both means from the same resamples.

    Not a number where the whole is nothing.
    """
    mean = mean_weights(relations)
    weights = resampled_weights(relations, RESAMPLES, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float((mean @ part) / (mean @ whole))
        draws = (weights @ part) / (weights @ whole)
    if not np.isfinite(ratio):
        return np.nan, np.nan, np.nan
    low, high = percentile_interval(draws, len(part))
    return ratio, float(low), float(high)


def summarise_facts(wide: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """`summarise` of a frame that is indexed by fact and relation, one column per quantity."""
    relations = pd.Series(relations_of(wide), dtype=object)
    return summarise(wide.reset_index(drop=True), relations, seed=seed)


def summarise(values: pd.DataFrame, relations: pd.Series, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Mean, 95 % interval and number of facts of each column; with a single fact there is no interval.

    Parameters
    ----------
    values : ``[fact, quantity]``; a missing value leaves the fact out of that quantity.
    relations : relation of each fact.
    resamples, seed : of the bootstrap (percentile intervals).

    Returns
    -------
    One row per quantity: ``mean, low, high, n``.
    """
    rows: pd.DataFrame = pd.DataFrame(index=values.columns, columns=["mean", "low", "high", "n"], dtype=float)
    numbers = values.to_numpy(dtype=float)
    present = values.notna().to_numpy()
    # Quantities measured on the same facts share their resamples.
    alike: dict[bytes, list[int]] = {}
    for column in range(values.shape[1]):
        alike.setdefault(present[:, column].tobytes(), []).append(column)
    for columns in alike.values():
        here = present[:, columns[0]]
        rows.iloc[columns, 3] = here.sum()
        if not here.any():
            continue
        names = relations[here].tolist()
        weights = resampled_weights(names, resamples, seed)
        for start in range(0, len(columns), COLUMNS_AT_ONCE):
            some = columns[start : start + COLUMNS_AT_ONCE]
            data = numbers[np.ix_(here, some)]
            rows.iloc[some, 0] = mean_weights(names) @ data
            rows.iloc[some, 1:3] = percentile_interval(data.T @ weights.T, len(names)).T
    return rows
