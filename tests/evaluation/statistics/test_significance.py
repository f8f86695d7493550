"""Statistics of paired facts nested in relations: values by hand, and error rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.statistics.means import mean_weights, resampled_weights
from kn_attrib.evaluation.statistics.significance import (
    EXACT_UP_TO,
    can_decide,
    equivalence_test,
    holm,
    least_p,
    paired_difference,
    relation_means,
    relations_needed,
    sign_flip_test,
)

Draw = NDArray[np.float64]
RUNS = 400


def world(mean: float, rng: np.random.Generator, relations: int = 17, facts: int = 3) -> tuple[Draw, list[str]]:
    """Effects of facts with a share of variance between relations, as real ones have."""
    names = [f"r{i}" for i in range(relations) for _ in range(facts)]
    between = np.repeat(rng.normal(0, 0.1, relations), facts)
    return mean + between + rng.normal(0, 0.15, len(names)), names


def test_difference_is_of_means_over_relations() -> None:
    found = paired_difference(np.array([1.0, 3.0, 6.0]), np.array([0.0, 0.0, 1.0]), ["a", "a", "b"])
    assert found.mean == pytest.approx((2 + 5) / 2)
    assert found.low <= found.mean <= found.high
    assert (found.n, found.relations) == (3, 2)
    assert found.p == 0.5  # both relations positive: 2 of 4 sign patterns are as extreme
    with pytest.raises(ConfigError, match="2 differences of 1 facts"):
        paired_difference(np.ones(2), np.zeros(2), ["a"])


def test_sign_flips_by_hand_and_sampled_as_exact() -> None:
    values = np.array([3.0, -1.0, 2.0])
    # Means of the 8 patterns: |±3 ±1 ±2| / 3; observed 4/3; reached by |4| and |6|, twice each.
    assert sign_flip_test(values, ["a", "b", "c"]) == pytest.approx(4 / 8)
    rng = np.random.default_rng(0)
    many, names = world(0.05, rng, relations=14, facts=1)
    patterns = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    exact = np.mean(np.abs(patterns @ many) >= abs(many.sum()) * (1 - 1e-12))
    assert sign_flip_test(many, names) == pytest.approx(exact, abs=0.015)


def test_holm_by_hand() -> None:
    assert holm([0.2, 0.01, 0.03, 0.5]) == pytest.approx([0.4, 0.04, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_equivalence_is_two_t_tests_over_relations() -> None:
    values, names = np.array([0.01, -0.02, 0.015, 0.0]), list("abcd")
    lower = stats.ttest_1samp(values, -0.05, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 0.05, alternative="less").pvalue
    assert equivalence_test(values, names, 0.05) == pytest.approx(max(lower, upper))
    assert equivalence_test(values, names, 0.05) < 0.05 < equivalence_test(values + 0.1, names, 0.05)
    assert equivalence_test(values[:1], names[:1], 0.05) == 1.0
    with pytest.raises(ConfigError, match="margin is 0"):
        equivalence_test(values, names, 0)


def test_intervals_cover_the_truth() -> None:
    rng, names = np.random.default_rng(1), world(0, np.random.default_rng(0))[1]
    weights = resampled_weights(names, 2000, seed=0)
    data = np.stack([world(0.3, rng)[0] for _ in range(2000)], axis=1)
    low, high = np.quantile(weights @ data, [0.025, 0.975], axis=0)
    assert mean_weights(names) @ data.mean(1) == pytest.approx(0.3, abs=0.01)
    assert 0.92 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.97


def test_false_positives_are_rare_and_power_is_there() -> None:
    rng = np.random.default_rng(2)
    nothing = [sign_flip_test(*world(0.0, rng), flips=999) for _ in range(RUNS)]
    assert np.mean(np.array(nothing) < 0.05) <= 0.06 + 1.64 * np.sqrt(0.05 * 0.95 / RUNS)
    something = [sign_flip_test(*world(0.12, rng), flips=999) for _ in range(RUNS)]
    assert np.mean(np.array(something) < 0.05) > 0.9
    # On the edge of the margin at most one in twenty is called equivalent; at zero nearly all are.
    edge = [equivalence_test(*world(0.1, rng), margin=0.1) for _ in range(RUNS)]
    assert np.mean(np.array(edge) < 0.05) <= 0.06 + 1.64 * np.sqrt(0.05 * 0.95 / RUNS)
    assert np.mean(np.array([equivalence_test(*world(0.0, rng), margin=0.15) for _ in range(RUNS)]) < 0.05) > 0.9


def test_relation_means_keep_their_order() -> None:
    assert relation_means(np.array([4.0, 1.0, 2.0]), ["b", "a", "b"]).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("comparisons", [1, 2, 5, 30])
def test_fewer_relations_than_needed_cannot_decide(comparisons: int) -> None:
    needed = relations_needed(comparisons, 0.05)
    assert can_decide(needed, comparisons, 0.05)
    assert not can_decide(needed - 1, comparisons, 0.05)
    # Differences that are as clear as can be, each in all relations alike.
    for relations, decided in ((needed, True), (needed - 1, False)):
        names = [str(r) for r in range(relations)]
        assert sign_flip_test(np.ones(relations), names) == least_p(relations)
        clearest = holm([least_p(relations)] * comparisons)
        assert (min(clearest) <= 0.05) == decided


def test_the_least_p_of_sampled_flips_is_that_of_one_in_all() -> None:
    assert least_p(EXACT_UP_TO + 20) == 1 / 10_001
    assert sign_flip_test(np.ones(40), [str(r) for r in range(40)]) == least_p(40)
