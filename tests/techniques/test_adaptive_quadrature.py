"""Adaptive integrals of vectors against closed forms: smooth, steep, spiky, graded, capped, and in groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kn_attrib.techniques.adaptive_quadrature import Grading, Integral, integrate_adaptively


class Path:
    """Rows ``[cos(c α), 1/(α + s) or a spike]`` with their integrals; counts what is asked."""

    def __init__(self, kind: str, scales: list[float]) -> None:
        self.kind, self.scales = kind, torch.tensor(scales, dtype=torch.float64)
        self.asked: list[int] = []

    def __call__(self, rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(len(rows))
        scale = self.scales[rows]
        if self.kind == "steep":
            slopes = torch.stack([1 / (alphas + scale), alphas], 1)
            return (alphas + scale).log() + alphas**2 / 2, slopes
        spike = scale / ((alphas - 0.37) ** 2 + scale**2)
        value = ((alphas - 0.37) / scale).atan() + alphas
        return value, torch.stack([spike, torch.ones_like(spike)], 1)

    def exact(self) -> Tensor:
        if self.kind == "steep":
            return torch.stack([((1 + self.scales) / self.scales).log(), torch.full_like(self.scales, 0.5)], 1)
        whole = (0.63 / self.scales).atan() + (0.37 / self.scales).atan()
        return torch.stack([whole, torch.ones_like(whole)], 1)

    def integral(
        self, tolerance: float, *, grade: bool = False, alone: bool = True, few: bool = False, ahead: bool = False
    ) -> Integral:
        rows = torch.arange(len(self.scales))
        value, end = self(rows, torch.ones(len(rows), dtype=torch.float64))
        self.asked.clear()
        groups, scales = rows if alone else torch.zeros_like(rows), self.scales if grade else None
        known = None if few or ahead else end
        return integrate_adaptively(self, value, groups, tolerance, known, scales, few_passes=few, ahead=ahead)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("kind", ["steep", "spike"])
def test_integrals_are_as_exact_as_asked(kind: str, tolerance: float, few: bool) -> None:
    path = Path(kind, [0.02, 0.1, 1.0, 10.0])
    found, exact = path.integral(tolerance, few=few), path.exact()
    assert ((found.sums - exact).norm(dim=1) <= tolerance * exact.norm(dim=1)).all()
    assert (found.error <= tolerance * found.sums.norm(dim=1)).all()
    assert not found.capped.any()
    assert int(found.nodes.sum()) == sum(path.asked)
    value, _ = path(torch.arange(4), torch.ones(4, dtype=torch.float64))
    start, _ = path(torch.arange(4), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(found.difference, value - start)


def test_easy_rows_have_three_nodes_and_hard_ones_many() -> None:
    nodes = Path("spike", [0.01, 20.0]).integral(1e-3).nodes.tolist()
    assert nodes[1] == 2  # and the end, which was given
    assert nodes[0] > 20


def test_no_value_is_asked_twice() -> None:
    seen: set[tuple[int, float]] = set()
    path = Path("spike", [0.01, 0.3])
    inner = path.__call__

    def once(rows: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        for each in zip(rows.tolist(), alphas.tolist(), strict=True):
            assert each not in seen
            seen.add(each)
        return inner(rows, alphas)

    value, _ = inner(torch.arange(2), torch.ones(2, dtype=torch.float64))
    for few in (False, True):
        seen.clear()
        integrate_adaptively(once, value, torch.arange(2), 1e-5, few_passes=few)
        assert len(seen) > 40


def test_fewer_calls_where_calls_are_dear() -> None:
    patient, hasty = Path("spike", [0.005]), Path("spike", [0.005])
    patient.integral(1e-4)
    hasty.integral(1e-4, few=True)
    assert len(hasty.asked) < len(patient.asked)


@pytest.mark.parametrize("kind", ["steep", "spike"])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4])
def test_nodes_that_are_asked_for_ahead_change_calls_and_no_result(kind: str, tolerance: float) -> None:
    scales = [0.01, 0.3, 1.0, 10.0, 300.0]
    plain, early = Path(kind, scales), Path(kind, scales)
    expected, found = plain.integral(tolerance), early.integral(tolerance, ahead=True)
    assert torch.equal(found.sums, expected.sums)
    assert torch.equal(found.error, expected.error)
    assert torch.equal(found.nodes, expected.nodes + 1)  # the end was not given
    assert early.asked[0] == 5 * len(scales)
    assert len(early.asked) < len(plain.asked) or tolerance == 1e-1


def test_five_nodes_of_a_smooth_path_are_judged_by_how_fast_their_rules_agree() -> None:
    """By hand, for α⁴: one node and three are 7/48 apart, three and five 1/120, and five are exact."""

    def smooth(_: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        return alphas**5 / 5, alphas[:, None] ** 4

    row, one = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.float64)
    found = integrate_adaptively(smooth, one / 5, row, 0.02, one[:, None])
    assert int(found.nodes) == 4
    assert float(found.sums) == pytest.approx(1 / 5)
    assert float(found.error) == pytest.approx(1 / 120 * 3 * (1 / 120) / (7 / 48))


def test_five_nodes_of_a_path_whose_rules_do_not_come_closer_are_off_by_their_distance() -> None:
    """By hand, for values 0, 1, 1, 0, 0 at five nodes: Simpson's rule gives 2/3, Boole's 22/45."""
    values = {0.0: 0.0, 0.25: 1.0, 0.5: 1.0, 0.75: 0.0, 1.0: 0.0}

    def rough(_: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        slopes = torch.tensor([[values[alpha]] for alpha in alphas.tolist()], dtype=torch.float64)
        return torch.zeros_like(alphas), slopes

    row, end = torch.zeros(1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.float64)
    found = integrate_adaptively(rough, torch.tensor([22 / 45], dtype=torch.float64), row, 0.4, end)
    assert float(found.sums) == pytest.approx(22 / 45)
    # Three times the share that they came closer: 3 · (8/45) / (1/3) = 8/5, more than all of it.
    assert float(found.error) == pytest.approx(2 / 3 - 22 / 45)


def test_small_rows_of_a_group_are_not_refined_for_their_own_sake() -> None:
    scales = [0.001, 50.0]
    alone = Path("steep", scales).integral(0.02).nodes
    together = Path("steep", scales).integral(0.02, alone=False).nodes
    assert (together <= alone).all()


def test_graded_nodes_find_a_steep_beginning_at_once() -> None:
    path = Path("steep", [1e-4])
    graded, even = path.integral(1e-3, grade=True), path.integral(1e-3)
    assert (graded.sums - path.exact()).norm() < 1e-3 * path.exact().norm()
    assert int(graded.nodes) < int(even.nodes) / 2


def test_the_map_is_one_to_one_and_its_derivative_right() -> None:
    grading = Grading(torch.tensor([1e-3, math.inf]))
    at = torch.linspace(0, 1, 2001, dtype=torch.float64)
    rows = torch.zeros(2001, dtype=torch.long)
    places, stretch = grading.places(rows, at)
    assert places[0] == 0
    assert places[-1] == pytest.approx(1)
    slopes = (places[2:] - places[:-2]) / (at[2:] - at[:-2])
    assert torch.allclose(slopes, stretch[1:-1], rtol=1e-4)
    same, ones = grading.places(rows + 1, at)
    assert torch.equal(same, at)
    assert torch.equal(ones, torch.ones_like(at))


def test_a_cap_is_told_with_the_error_that_is_left() -> None:
    path = Path("spike", [1e-4, 5.0])
    rows = torch.arange(2)
    value, end = path(rows, torch.ones(2, dtype=torch.float64))
    found = integrate_adaptively(path, value, rows, 1e-6, end, most_nodes=20)
    assert found.capped.tolist() == [True, False]
    assert int(found.nodes[0]) < 40
    assert found.error[0] > 1e-6 * found.sums[0].norm()


def test_a_gap_is_evidence_of_an_error_that_nested_rules_do_not_see() -> None:
    """A spike between all first nodes: both rules agree, and the sum of the components does not."""

    def hidden(_: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        width = 0.004
        spike = torch.exp(-(((alphas - 0.2) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
        value = 0.5 * (1 + torch.erf((alphas - 0.2) / (width * math.sqrt(2))))
        return value, spike[:, None]

    row = torch.zeros(1, dtype=torch.long)
    value, _ = hidden(row, torch.ones(1, dtype=torch.float64))
    found = integrate_adaptively(hidden, value, row, 0.01)
    assert float(found.sums) == pytest.approx(1, abs=0.02)
