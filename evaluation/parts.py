"""Which model the facts of a comparison are scored and judged in: the model itself, or views of it with other units."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from kn_attrib.evaluation.effects import Evaluator
from kn_attrib.evaluation.selection import Candidate, Selection
from kn_attrib.model import NeuronModel
from kn_attrib.prompts import Prompt
from kn_attrib.units import Units


@dataclass(frozen=True)
class Part:
    """Facts that are scored and judged in one model or view, and what judges them there."""

    evaluator: Evaluator
    targets: tuple[Candidate, ...]

    @property
    def model(self) -> NeuronModel:
        """The model or view."""
        return self.evaluator.model

    @cached_property
    def queries(self) -> list[Prompt]:
        """The facts' attribution queries."""
        return [query for c in self.targets for text in c.prompts for query in text.queries]


@dataclass
class Parts:
    """The parts of a comparison for each kind of units: one for neurons, one for each view of other units.

    Views are fitted on attribution queries of the targets and of the contrast facts, once for all methods.

    Parameters
    ----------
    evaluator : of the model itself.
    selection : the facts.
    contrast : attribution queries of further facts.
    """

    evaluator: Evaluator
    selection: Selection
    contrast: Sequence[Prompt]
    cost: dict[Units | None, dict[str, float]] = field(default_factory=dict)
    _known: dict[Units | None, list[Part]] = field(default_factory=dict)

    def of(self, units: Units | None) -> list[Part]:
        """The parts for some units (None: neurons), the first target's first."""
        if units not in self._known:
            model = self.evaluator.model
            with measuring(model) as self.cost[units]:
                self._known[units] = self._views(units) if units else [Part(self.evaluator, self.selection.targets)]
        return self._known[units]

    def _views(self, units: Units) -> list[Part]:
        (whole,) = self.of(None)
        relations = {c.fact.relation for c in whole.targets}
        further = [query for query in self.contrast if query.fact.relation in relations]
        views = units.views(whole.model, [*whole.queries, *further])
        return [
            Part(
                replace(self.evaluator, model=view, _known={}),
                tuple(c for c in whole.targets if views[c.fact.relation] is view),
            )
            for view in dict.fromkeys(views.values())
        ]


@contextmanager
def measuring(model: NeuronModel, before: dict[str, float] | None = None) -> Iterator[dict[str, float]]:
    """Yields a record of the seconds, forwards and backwards spent, complete on leaving and on top of ``before``."""
    spent = dict(before or {"seconds": 0.0, "forwards": 0, "backwards": 0})
    started, forwards, backwards = time.perf_counter(), model.cost.forwards, model.cost.backwards
    yield spent
    spent["seconds"] += time.perf_counter() - started
    spent["forwards"] += model.cost.forwards - forwards
    spent["backwards"] += model.cost.backwards - backwards
