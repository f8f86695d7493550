"""Integrals of vectors along paths, each with as many nodes as it needs, where it needs them.

Every row is an integral over [0, 1]. It begins with three nodes, is given five where they do not suffice, and is then
bisected, panel by panel; no value is ever thrown away. Two nested rules on the same nodes tell how far off a panel is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_NODES = 256
"""Nodes of one row after which it is left as it is: even, so that the node at the end may count or not."""
WORST = 0.3
"""Panels are bisected whose error is at least this share of the largest of their row."""
CUTS = 4
"""Parts that panels are cut into where calls are to be few."""
STEADY = 3.0
"""Five nodes are off by what their two rules are apart, times this often the share that these came closer."""
LEAST = 1 / 15
"""Of the distance of Boole's and Simpson's results on five nodes: that of Boole's and the finer Simpson's."""
BOOLE = (7 / 90, 32 / 90, 12 / 90, 32 / 90, 7 / 90)
SIMPSON = (1 / 6, 0.0, 4 / 6, 0.0, 1 / 6)

Integrand = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Rows and where on their paths, ``[node]`` each -> function value ``[node]`` and integrand ``[node, component]``."""


@dataclass(frozen=True)
class Integral:
    """Integrals and how well they are known.

    Attributes
    ----------
    sums : ``[row, component]``.
    error : ``[row]``, estimated Euclidean length of the error: the distance of two nested rules' results.
    capped : ``[row]``, whether a row ran out of nodes before it was as exact as asked.
    nodes : ``[row]``, evaluations, without one that was given.
    difference : ``[row]``, what the components should add up to: the function's value at the end less that at 0.
    """

    sums: Tensor
    error: Tensor
    capped: Tensor
    nodes: Tensor
    difference: Tensor


@dataclass(frozen=True)
class Grading:
    """The map ``α = s sinh(u asinh(1/s))`` of [0, 1] onto itself, per row: nodes crowd below ``s``.

    Where a norm stands behind what is scaled, scaling does nothing until ``α`` is about ``s``, and nearly all of the
    integral lies there. With ``s = ∞`` it is the identity.

    Parameters
    ----------
    scales : ``s``, ``[row]``.
    """

    scales: Tensor

    def places(self, rows: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """``α`` and ``dα/du`` at ``u``, in double precision: ``[node]`` each."""
        scale = self.scales[rows].double()
        plain = scale.isinf()
        scale = scale.masked_fill(plain, 1.0)
        width = torch.asinh(1 / scale)
        alpha = torch.where(plain, at, scale * torch.sinh(at * width)).clamp(0, 1)
        return alpha, torch.where(plain, torch.ones_like(at), scale * width * torch.cosh(at * width))


def integrate_adaptively(
    integrand: Integrand,
    value: Tensor,
    groups: Tensor,
    tolerance: float,
    end: Tensor | None = None,
    scales: Tensor | None = None,
    few_passes: bool = False,
    ahead: bool = False,
    most_nodes: int = MOST_NODES,
) -> Integral:
    """Integrals over [0, 1], as exact as those they are compared with ask for.

    A row is done when its estimated error is at most ``tolerance`` times the length of the longest integral of its
    group. The estimate is the distance of the integrals by two nested rules (midpoint and Simpson on three nodes,
    Simpson and Boole on the five of each panel); and never less than ``|gap|/√components``, the least error that can
    make the gap between the sum of the components and the difference that it should be.

    Parameters
    ----------
    integrand : function value and integrand at places on the path.
    value : ``[row]``, the function's value at the paths' ends.
    groups : ``[row]``, index of the group that a row is compared within.
    tolerance : share of the group's longest integral.
    end : the integrand there, ``[row, component]``, if it is known beforehand.
    scales : ``[row]``, where nodes crowd (`Grading`); evenly if not given.
    few_passes : a call of the integrand costs more than the nodes in it: begin with five, and cut panels finer.
    ahead : five nodes cost hardly more than three: ask for them at once, and use what is needed, as without this.
    most_nodes : of one row.
    """
    work = _Work(integrand, value, end, groups, scales, most_nodes)
    if few_passes:
        work.begin_with_five()
    else:
        work.begin_with_three(ahead)
    while len(panels := work.unfinished(tolerance)):
        work.refine(panels, CUTS if few_passes else 2)
    return work.result(tolerance)


class _Work:
    """All panels of all rows: ``[panel, 5, component]``, unless a row has but three nodes, which stand in ``first``."""

    def __init__(
        self,
        integrand: Integrand,
        value: Tensor,
        end: Tensor | None,
        groups: Tensor,
        scales: Tensor | None,
        most_nodes: int,
    ) -> None:
        self.value, self.end = value, end
        self.integrand, self.groups, self.most_nodes = integrand, groups, most_nodes
        self.every = torch.arange(len(groups), device=groups.device)
        ones = torch.ones_like(self.every, dtype=torch.float64)
        self.grading = Grading(ones * torch.inf if scales is None else scales)
        self.nodes = torch.zeros_like(self.every)
        self.quarters: Tensor | None = None
        self.has_three = torch.zeros_like(self.every, dtype=torch.bool)
        self.rows = self.every[:0]
        self.left = self.width = ones[:0]

    def _begin(self, places: Sequence[float]) -> Tensor:
        """Integrand of every row at places and at its end, ``[row, node, component]``."""
        asked = places if self.end is not None else (*places, 1.0)
        at = torch.tensor(asked, dtype=torch.float64, device=self.groups.device)
        n = len(self.every)
        values, slopes = self._at(self.every.repeat(len(at)), at.repeat_interleave(n))
        self.difference = self.value - values[:n]
        self.nodes += len(at)
        found: Tensor = slopes.unflatten(0, (len(at), n)).transpose(0, 1)
        if self.end is None:
            return found
        _, stretch = self.grading.places(self.every, torch.ones_like(self.every, dtype=torch.float64))
        return torch.cat([found, (self.end * stretch.to(slopes)[:, None])[:, None]], 1)

    def begin_with_three(self, ahead: bool) -> None:
        if ahead:
            found = self._begin((0.0, 0.25, 0.5, 0.75))
            self.first, self.quarters = found[:, ::2], found[:, 1::2]
            self.nodes -= 2  # until they are needed
        else:
            self.first = self._begin((0.0, 0.5))
        self.has_three[:] = True
        self.values = self.first.new_empty(0, 5, self.first.shape[2])

    def begin_with_five(self) -> None:
        self.values = self._begin((0.0, 0.25, 0.5, 0.75))
        self.first = self.values[:, ::2]
        self.rows = self.every
        self.left = torch.zeros_like(self.every, dtype=torch.float64)
        self.width = torch.ones_like(self.left)

    def _at(self, rows: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        alphas, stretch = self.grading.places(rows, at)
        values, slopes = self.integrand(rows, alphas)
        return values, slopes * stretch.to(slopes)[:, None]

    def _panels(self) -> tuple[Tensor, Tensor]:
        """Integral of each panel, and how far that of the coarser rule is off."""
        boole, simpson = (torch.tensor(rule).to(self.values) for rule in (BOOLE, SIMPSON))
        width = self.width.to(self.values)[:, None]
        sums = torch.einsum("k,pkc->pc", boole, self.values) * width
        return sums, torch.einsum("k,pkc->pc", boole - simpson, self.values) * width

    def _totals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Integral of each row, the distance of two rules' results, and that distance for each panel."""
        sums, off = torch.zeros_like(self.first[:, 0]), torch.zeros_like(self.first[:, 0])
        three = self.has_three
        begin, middle, last = self.first[three].unbind(1)
        sums[three] = (begin + 4 * middle + last) / 6
        off[three] = (begin - 2 * middle + last) / 6
        parts, distances = self._panels()
        sums, off = sums.index_add(0, self.rows, parts), off.index_add(0, self.rows, distances)
        return sums, off.norm(dim=1), distances.norm(dim=1)

    def _steady(self, distances: Tensor, gaps: Tensor) -> Tensor:
        """What rows of five nodes are off by, given how far their rules are apart, and all others as they are.

        Where the rules of one, three and five nodes come closer and closer, Boole's is far better than Simpson's, which
        it is compared with; unless the gap says otherwise. On parts of a path that had to be cut this is not so.
        """
        whole = torch.zeros_like(self.has_three)
        whole[self.rows[self.width == 1]] = True
        begin, middle, last = self.first.unbind(1)
        before = ((begin - 2 * middle + last) / 6).norm(dim=1)
        shares = (STEADY * distances / before).nan_to_num(1.0).clamp(LEAST, 1.0)
        return torch.where(whole, torch.maximum(shares * distances, torch.minimum(distances, gaps)), distances)

    def _judged(self, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Integrals, errors, the largest errors that are allowed, and the distance of each panel."""
        sums, distances, of_panels = self._totals()
        lengths = sums.norm(dim=1)
        longest = lengths.new_zeros(int(self.groups.max()) + 1)
        longest = longest.scatter_reduce(0, self.groups, lengths, "amax")[self.groups]
        gaps = (sums.sum(1) - self.difference).abs()
        errors = torch.maximum(self._steady(distances, gaps), gaps / math.sqrt(sums.shape[1]))
        # Below this the values are themselves rounding errors, and no number of nodes brings the gap down.
        noise = 8 * torch.finfo(sums.dtype).eps * longest
        return sums, errors, tolerance * longest + noise, of_panels

    def unfinished(self, tolerance: float) -> Tensor:
        """Panels to bisect; a row of three nodes is given as ``-1 - row``."""
        _, errors, allowed, of_panels = self._judged(tolerance)
        rough = errors > allowed
        rough &= self.nodes < self.most_nodes
        few = (rough & self.has_three).nonzero()[:, 0]
        worst = of_panels.new_zeros(len(rough)).scatter_reduce(0, self.rows, of_panels, "amax")
        panels = (rough[self.rows] & (of_panels >= WORST * worst[self.rows])).nonzero()[:, 0]
        return torch.cat([-1 - few, panels])

    def refine(self, chosen: Tensor, parts: int) -> None:
        """Two more nodes for rows that have three; panels are cut into equal parts, with four new nodes for two."""
        few, panels = -1 - chosen[chosen < 0], chosen[chosen >= 0]
        rows, left, width = self.rows[panels], self.left[panels], self.width[panels]
        asked = [0.25, 0.75] if self.quarters is None else []
        quarters = torch.tensor(asked, dtype=torch.float64, device=left.device)
        finer = torch.arange(4 * parts + 1, dtype=torch.float64, device=left.device) / (4 * parts)
        fresh = (torch.arange(4 * parts + 1, device=left.device) % parts != 0).nonzero()[:, 0]
        at = torch.cat([quarters.repeat(len(few)), (left[:, None] + width[:, None] * finer[fresh]).flatten()])
        # Rows that are asked for: of those with few nodes each quarter, of panels each fresh place.
        of = torch.cat([few.repeat_interleave(len(asked)), rows.repeat_interleave(len(fresh))])
        slopes = self._at(of, at)[1] if len(of) else self.first[:0, 0]
        begin, middle, last = self.first[few].unbind(1)
        n_asked = len(few) * len(asked)
        two = slopes[:n_asked].unflatten(0, (len(few), 2)) if self.quarters is None else self.quarters[few]
        whole = torch.stack([begin, two[:, 0], middle, two[:, 1], last], 1)
        joined = slopes.new_empty(len(panels), len(finer), slopes.shape[1])
        joined[:, ::parts] = self.values[panels]
        joined[:, fresh] = slopes[n_asked:].unflatten(0, (len(panels), len(fresh)))
        self.has_three[few] = False
        self.nodes[few] += 2
        self.nodes.index_add_(0, rows, torch.full_like(rows, len(fresh)))
        kept = torch.ones_like(self.rows, dtype=torch.bool)
        kept[panels] = False
        cut = range(parts)
        self.values = torch.cat([self.values[kept], whole, *(joined[:, 4 * i : 4 * i + 5] for i in cut)])
        self.rows = torch.cat([self.rows[kept], few, rows.repeat(parts)])
        lefts = [left + width * i / parts for i in cut]
        self.left = torch.cat([self.left[kept], torch.zeros_like(few, dtype=left.dtype), *lefts])
        self.width = torch.cat([self.width[kept], torch.ones_like(few, dtype=left.dtype), width.repeat(parts) / parts])

    def result(self, tolerance: float) -> Integral:
        sums, errors, allowed, _ = self._judged(tolerance)
        return Integral(sums, errors, errors > allowed, self.nodes, self.difference)
