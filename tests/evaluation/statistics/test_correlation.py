"""Correlations of curves against numpy's, and their intervals."""

from __future__ import annotations

import numpy as np

from kn_attrib.evaluation.statistics.correlation import of_deviations, of_mean_curves

RELATIONS = ["a", "a", "a", "b", "b"]
RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.normal(size=(5, 7)), RNG.normal(size=(5, 7))
WEIGHTS = np.array([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4])


def test_over_points_it_is_that_of_the_mean_curves() -> None:
    found = of_mean_curves(FIRST, SECOND, RELATIONS)
    assert np.isclose(found.value, np.corrcoef(WEIGHTS @ FIRST, WEIGHTS @ SECOND)[0, 1])
    assert found.low < found.value < found.high


def test_over_facts_it_is_that_of_deviations_from_the_mean_curves() -> None:
    found = of_deviations(FIRST, SECOND, RELATIONS)
    x, y = FIRST - WEIGHTS @ FIRST, SECOND - WEIGHTS @ SECOND
    expected = (WEIGHTS @ (x * y)).sum() / np.sqrt((WEIGHTS @ x**2).sum() * (WEIGHTS @ y**2).sum())
    assert np.isclose(found.value, expected)
    # Curves that all facts share say nothing here.
    shared = of_deviations(FIRST + 10 * np.arange(7), SECOND + 10 * np.arange(7), RELATIONS)
    assert np.isclose(shared.value, found.value)


def test_a_quantity_and_itself() -> None:
    for correlation in (of_mean_curves, of_deviations):
        assert np.allclose(correlation(FIRST, 2 * FIRST + 1, RELATIONS), 1)
        assert np.allclose(correlation(FIRST, -FIRST, RELATIONS), -1)


def test_what_does_not_vary_has_no_correlation() -> None:
    for correlation in (of_mean_curves, of_deviations):
        assert np.isnan(correlation(FIRST, np.ones_like(FIRST), RELATIONS)).all()
