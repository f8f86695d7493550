"""Which model the facts of a comparison are scored and judged in: the model itself, or views of it with other units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from kn_attrib.evaluation.measure.known_facts import Candidate, Selection
from kn_attrib.evaluation.measure.outcomes import Evaluator
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.cost import spending
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.units.view import Units


@dataclass(frozen=True)
class FactsInView:
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
class Views:
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
    _known: dict[Units | None, list[FactsInView]] = field(default_factory=dict)

    def of(self, units: Units | None) -> list[FactsInView]:
        """The parts for some units (None: neurons), the first target's first."""
        if units not in self._known:
            model = self.evaluator.model
            with spending(model.execution.cost) as self.cost[units]:
                self._known[units] = (
                    self._views(units) if units else [FactsInView(self.evaluator, self.selection.targets)]
                )
        return self._known[units]

    def _views(self, units: Units) -> list[FactsInView]:
        (whole,) = self.of(None)
        relations = {c.fact.relation for c in whole.targets}
        further = [query for query in self.contrast if query.fact.relation in relations]
        views = units.views(whole.model, [*whole.queries, *further])
        return [
            FactsInView(
                replace(self.evaluator, model=view),
                tuple(c for c in whole.targets if views[c.fact.relation] is view),
            )
            for view in dict.fromkeys(views.values())
        ]
