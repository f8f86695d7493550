"""Means and intervals against hand-computed cases and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kn_attrib.evaluation.statistics.means import (
    mean_interval,
    mean_weights,
    percentile_interval,
    ratio_interval,
    resampled_weights,
    summarise,
)
from kn_attrib.evaluation.statistics.sample import LEAST_FACTS, LEAST_RELATIONS, Sample

RELATIONS = ["a", "a", "a", "b"]


def test_mean_is_over_relations_of_means_over_facts() -> None:
    values = np.array([1.0, 2.0, 3.0, 10.0])
    assert mean_weights(RELATIONS) @ values == pytest.approx((2.0 + 10.0) / 2)


def test_resampled_weights_add_up_and_treat_relations_as_units() -> None:
    weights = resampled_weights(RELATIONS, 4000, seed=0)
    assert np.allclose(weights.sum(1), 1)
    # The only fact of b carries the weight of b's draws: 0, 1/2 or 1, with probabilities 1/4, 1/2, 1/4.
    found, counts = np.unique(weights[:, 3].round(12), return_counts=True)
    assert found.tolist() == [0.0, 0.5, 1.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_resampled_means_equal_a_plain_loop_in_distribution() -> None:
    rng = np.random.default_rng(1)
    relations = ["a"] * 4 + ["b"] * 3 + ["c"] * 5
    values = rng.normal(size=12)
    groups = {r: values[[i for i, each in enumerate(relations) if each == r]] for r in "abc"}
    slow = [
        np.mean([rng.choice(groups[r], len(groups[r])).mean() for r in rng.choice(list("abc"), 3)]) for _ in range(4000)
    ]
    fast = resampled_weights(relations, 4000, seed=2) @ values
    assert np.quantile(fast, [0.025, 0.5, 0.975]) == pytest.approx(np.quantile(slow, [0.025, 0.5, 0.975]), abs=0.06)


def test_summary_leaves_missing_values_out_of_their_quantity_only() -> None:
    values = pd.DataFrame({"x": [1.0, 2.0, 3.0, 10.0], "y": [1.0, np.nan, 3.0, np.nan], "z": [np.nan] * 4})
    found = summarise(values, pd.Series(RELATIONS), resamples=200)
    assert found.loc["x", "mean"] == pytest.approx(6.0)
    assert found.loc["y", "mean"] == pytest.approx(2.0)
    assert found.n.tolist() == [4, 2, 0]
    assert found["mean"].isna().tolist() == [False, False, True]
    assert (found.low <= found["mean"])[:2].all()
    assert (found["mean"] <= found.high)[:2].all()


def test_intervals_cover_the_truth() -> None:
    """Many relations, within-relation correlation: about 95 of 100 intervals hold the true mean."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(150):
        effects = rng.normal(-0.3, 0.2, size=30)
        relations = np.repeat(np.arange(30), 5)
        values = effects[relations] + rng.normal(0, 0.3, size=150)
        found = summarise(pd.DataFrame({"v": values}), pd.Series(relations.astype(str)), 400, seed=trial).iloc[0]
        hits += found.low <= -0.3 <= found.high
    assert 0.89 <= hits / 150 <= 0.99


def test_one_fact_has_no_interval() -> None:
    mean, *ends = mean_interval(np.array([0.7]), ["a"])
    assert mean == 0.7
    assert np.isnan(ends).all()
    ratio, *ends = ratio_interval(np.array([1.0]), np.array([2.0]), ["a"])
    assert ratio == 0.5
    assert np.isnan(ends).all()
    values = pd.DataFrame({"one": [1.0, np.nan, np.nan], "three": [1.0, 2.0, 3.0]})
    found = summarise(values, pd.Series(["a", "a", "b"]), resamples=100)
    assert found.loc["one", ["mean", "n"]].tolist() == [1.0, 1.0]
    assert found.loc["one", ["low", "high"]].isna().all()
    assert found.loc["three", ["low", "high"]].notna().all()


def test_a_ratio_to_nothing_is_none(recwarn: pytest.WarningsRecorder) -> None:
    names = ["a", "b", "c"]
    for part in (np.zeros(3), np.ones(3)):
        assert np.isnan(ratio_interval(part, np.zeros(3), names)).all()
    # Resamples without the one fact that changes have no ratio; those with it are not bounded.
    ratio, low, high = ratio_interval(np.ones(3), np.array([0.0, 0.0, 1.0]), names)
    assert (ratio, low) == (3.0, 1.0)
    assert np.isnan(high)
    draws = np.stack([np.arange(101.0), np.full(101, np.nan)])
    assert percentile_interval(draws, 5)[:, 0].tolist() == [2.5, 97.5]
    assert np.isnan(percentile_interval(draws, 5)[:, 1]).all()
    assert not recwarn.list


def coverage(relations: int, per_relation: int) -> float:
    """How often a 95 % interval holds the true mean, with relations that differ."""
    rng = np.random.default_rng(0)
    names = [str(r) for r in range(relations) for _ in range(per_relation)]
    weights = resampled_weights(names, 1000, seed=0)
    effects = rng.normal(0, 0.2, (1000, relations)).repeat(per_relation, axis=1)
    draws = (effects + rng.normal(0, 0.3, effects.shape)) @ weights.T
    low, high = percentile_interval(draws, len(names))
    return float(np.mean((low <= 0) & (high >= 0)))


def test_the_least_that_a_verdict_takes_is_where_intervals_hold_nearly_what_they_promise() -> None:
    assert coverage(2, 1) < 0.6
    assert coverage(2, LEAST_FACTS // 2) < 0.82
    assert coverage(LEAST_RELATIONS, 1) < 0.86
    assert coverage(LEAST_RELATIONS, LEAST_FACTS // LEAST_RELATIONS) > 0.87
    enough = [Sample(n, r).enough for n, r in ((10, 5), (9, 9), (100, 4), (34, 17))]
    assert enough == [True, False, False, True]
    assert str(Sample(34, 17)) == "n = 34 of 17 relations"
