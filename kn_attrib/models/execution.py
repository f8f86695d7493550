"""How one model is run, and what came of it: settings, what the guards of the fast path found, and the cost so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from kn_attrib.models.compute import Compute
from kn_attrib.models.cost import Cost
from kn_attrib.models.onednn_linears import copied_bytes
from kn_attrib.models.products import ProductClass, Products, summary_of


@dataclass
class Verdict:
    """What the guards of the wave found about a model.

    Attributes
    ----------
    reason : why the wave may not be used; empty if it may.
    lengths : numbers of tokens for which unmodified rows have given back the clean answer.
    extents : the same of prompts of several lengths: numbers of tokens of the shortest and the longest.
    """

    reason: str = ""
    lengths: set[int] = field(default_factory=set)
    extents: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Execution:
    """How one model is run, and what came of it.

    Parameters
    ----------
    settings : engine, memory, precision and products.
    linears : the model's plain linears (`linears_of`), large products of which may be oneDNN's.

    Attributes
    ----------
    cost : how much the model has been run.
    verdict, whole_verdict : what the guards of the wave found for rows at the answer position, and for rows at all
        tokens; None before their first use.
    mixed_verdict : what they found for rows of prompts of several lengths.
    restoration_verdict : what they found for rows that have states restored.
    norms_behind : per layer the norm between its feed-forward block and the residual stream; None before it was asked.
    met : the classes of large products that the model has been run with.
    limit : most bytes that rows may take where `settings` name no budget; None outside `within`.
    """

    settings: Compute = field(default_factory=Compute)
    linears: Sequence[nn.Module] = ()
    cost: Cost = field(default_factory=Cost)
    verdict: Verdict | None = None
    whole_verdict: Verdict | None = None
    mixed_verdict: Verdict = field(default_factory=Verdict)
    restoration_verdict: Verdict = field(default_factory=Verdict)
    norms_behind: list[nn.Module | None] | None = None
    met: set[ProductClass] = field(default_factory=set)
    limit: int | None = None

    @property
    def products(self) -> Products:
        """Chooses which library does each large product."""
        return Products(self.settings.products, self.met)

    def products_so_far(self) -> dict[str, str | int]:
        """Of all large products that the model has been run with: what was asked, and classes by library."""
        return summary_of(self.settings.products, self.met)

    def row_budget(self, device: torch.device) -> int:
        """Bytes that rows may take: the memory budget less copies of weights, but at least a quarter of it."""
        budget = self.settings.budget(device)
        if self.limit is not None and self.settings.memory_budget is None:
            budget = min(budget, self.limit)
        return max(budget - copied_bytes(self.linears), budget // 4)

    @contextmanager
    def within(self, most: int) -> Iterator[None]:
        """While active, rows take at most so many bytes, where the user has set no budget; undone on any exit.

        For work in which larger chunks are no faster, so that it does not take 40 % of a machine.
        """
        before, self.limit = self.limit, most
        try:
            yield
        finally:
            self.limit = before

    def on_plain_path(self) -> Execution:
        """The same, with the same cost, but never by the wave."""
        return replace(self, settings=replace(self.settings, engine="plain"))
