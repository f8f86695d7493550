"""Which model the facts of a comparison are scored and judged in: the model itself, or views of it with other units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from kn_attrib.evaluation.measure.known_facts import Candidate, Selection, queries_of
from kn_attrib.evaluation.measure.outcomes import Evaluator
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.cost import spending
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.units.view import Units


@dataclass(frozen=True)
class FactsInView:
    """Facts that are scored and judged in one model or view, and the evaluator that judges them there."""

    evaluator: Evaluator
    targets: tuple[Candidate, ...]

    @property
    def model(self) -> NeuronModel:
        """The model or view."""
        return self.evaluator.model

    @cached_property
    def queries(self) -> list[Prompt]:
        """The facts' attribution queries."""
        return queries_of(self.targets)


@dataclass
class Views:
    """All targets of a comparison in the model itself, and, divided by relation, in views of it with other units.

    Views are fitted on attribution queries of the targets and of the contrast facts, once for all methods.

    Parameters
    ----------
    evaluator : of the model itself.
    selection : the facts.
    contrast : attribution queries of further facts.
    cost : units -> what fitting their views took.
    """

    evaluator: Evaluator
    selection: Selection
    contrast: Sequence[Prompt]
    cost: dict[Units | None, dict[str, float]] = field(default_factory=dict)
    _made: dict[Units | None, list[FactsInView]] = field(default_factory=dict)

    def of(self, units: Units | None) -> list[FactsInView]:
        """The views that show some units (None: the model itself, which shows neurons), the first target's first."""
        if units not in self._made:
            with spending(self.evaluator.model.execution.cost) as self.cost[units]:
                self._made[units] = self._whole() if units is None else self._fitted(units)
        return self._made[units]

    def _whole(self) -> list[FactsInView]:
        return [FactsInView(self.evaluator, self.selection.targets)]

    def _fitted(self, units: Units) -> list[FactsInView]:
        (whole,) = self.of(None)
        relations = {c.fact.relation for c in whole.targets}
        further = [query for query in self.contrast if query.fact.relation in relations]
        view_of = units.views(whole.model, [*whole.queries, *further])
        found = []
        for view in dict.fromkeys(view_of.values()):
            targets = tuple(c for c in whole.targets if view_of[c.fact.relation] is view)
            found.append(FactsInView(replace(self.evaluator, model=view), targets))
        return found
