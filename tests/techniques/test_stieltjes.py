"""∫ g dh from points: curves with known integrals, and how many points they take."""

from __future__ import annotations

import torch
from torch import Tensor

from kn_attrib.techniques.stieltjes import PANELS, integrate_along

FIRST = 4 * PANELS + 1


class Curves:
    """Two layers of two components, ``h = u³`` and ``g = c u² + bump``; notes what it is asked."""

    def __init__(self, width: float = 1.0, height: float = 0.0) -> None:
        self.width, self.height, self.asked = width, height, []  # type: float, float, list[float]

    def bump(self, u: Tensor) -> Tensor:
        return self.height * torch.exp(-(((u - 0.3) / self.width) ** 2))

    def __call__(self, at: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += at.tolist()
        u = at[:, None, None]
        scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
        g = u**2 * scale + self.bump(u)
        return g, (u**3).expand_as(g)

    def integral(self) -> Tensor:
        u = torch.linspace(0, 1, 400_001, dtype=torch.float64)
        smooth = torch.tensor([[3.0, 6.0], [9.0, 12.0]], dtype=torch.float64) / 5  # ∫ c u² d(u³) = 3c/5
        return smooth + torch.trapezoid(self.bump(u) * 3 * u**2, u)


def test_smooth_curves_take_the_first_points_alone() -> None:
    curves = Curves()
    found = integrate_along(curves, 0.01)
    torch.testing.assert_close(found.sums, curves.integral(), rtol=1e-6, atol=0)
    assert len(curves.asked) == FIRST
    assert (found.error <= 0.01 * found.sums.norm(dim=-1).max()).all()
    assert not found.capped.any()


def test_points_go_where_the_curve_is_rough_and_none_is_asked_twice() -> None:
    curves = Curves(width=0.01, height=300.0)
    found = integrate_along(curves, 0.001)
    right = curves.integral()
    assert ((found.sums - right).norm(dim=-1) < 0.001 * right.norm(dim=-1).max()).all()
    assert ((found.sums - right).norm(dim=-1) < found.error).all()
    assert FIRST < len(curves.asked) < 100
    assert len(set(curves.asked)) == len(curves.asked)
    later = torch.tensor(curves.asked[FIRST:])
    assert ((later - 0.3).abs() < 0.2).all()
    assert not found.capped.any()


def test_points_that_run_out_are_said() -> None:
    found = integrate_along(Curves(width=0.02, height=300.0), 1e-4, most_points=FIRST + 4)
    assert found.capped.all()
    assert (found.error > 1e-4 * found.sums.norm(dim=-1).max()).all()
