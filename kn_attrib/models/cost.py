"""How much a model has been run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Cost:
    """How much a model has been run since it was loaded, in rows: one prompt with one set of activations each.

    Attributes
    ----------
    forwards, backwards : rows that went through the model (or the part of it that they change), and back.
    """

    forwards: int = 0
    backwards: int = 0

    def count(self, logits: Tensor) -> Tensor:
        """Count ``logits [row, vocabulary]`` as one forward each, and as one backward each when a gradient comes."""
        rows = len(logits)
        self.forwards += rows
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count_back(rows))
        return logits

    def _count_back(self, rows: int) -> None:
        self.backwards += rows


@contextmanager
def spending(cost: Cost, before: dict[str, float] | None = None) -> Iterator[dict[str, float]]:
    """Yields a record of the seconds, forwards and backwards spent, complete on leaving and on top of ``before``."""
    spent = dict(before or {"seconds": 0.0, "forwards": 0, "backwards": 0})
    started, forwards, backwards = time.perf_counter(), cost.forwards, cost.backwards
    yield spent
    spent["seconds"] += time.perf_counter() - started
    spent["forwards"] += cost.forwards - forwards
    spent["backwards"] += cost.backwards - backwards


def cost_text(spent: Mapping[str, float]) -> str:
    """A record of `spending` in words.

    >>> cost_text({"seconds": 1.234, "forwards": 1200, "backwards": 0})
    '1.2 s, 1,200 forwards, 0 backwards'
    """
    return f"{spent['seconds']:.1f} s, {spent['forwards']:,.0f} forwards, {spent['backwards']:,.0f} backwards"
