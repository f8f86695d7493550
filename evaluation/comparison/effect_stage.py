"""The second stage of a comparison: interventions on some facts, as flat rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from kn_attrib.evaluation.comparison.control_neurons import SelectedNeurons, strengths
from kn_attrib.evaluation.comparison.curves import curve_outcomes, masks_of
from kn_attrib.evaluation.comparison.score_stage import MethodScores
from kn_attrib.evaluation.comparison.settings import Settings
from kn_attrib.evaluation.measure.interventions import NOTHING, Change, Interventions
from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.measure.metrics import effect
from kn_attrib.evaluation.measure.outcomes import INTACT, Evaluator, Job, Outcome
from kn_attrib.evaluation.vocabulary import BUDGET_CONTROLS, CURVE, DELETE, DROPOUT, GROUPS, KEEP, ROW, WHOLE_FFN, Group
from kn_attrib.facts.prompts import Text
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import numpy_generator
from kn_attrib.units.view import UnitModel

Groups = Mapping[str, Mapping[Group, tuple[Text, ...]]]
"""Fact -> group -> its texts."""
DROPPED_ON: tuple[Group, ...] = ("target", "other_relation", "plain_text")
"""Groups that random shares of all neurons are silenced on."""
CURVE_METRICS = ("p_before", "p_after", "delta_logprob")
"""Metrics of curves: ranks and top answers are not looked at there."""


class Cell(NamedTuple):
    """One thing to measure: neurons of a fact under a change, on a group of texts.

    ``kind`` is what rows call ``neurons``: ``"method"``, or which control the neurons are.
    """

    target: Candidate
    method: str
    selection: str
    kind: str
    neurons: NeuronSet
    intervention: str
    change: Change
    group: Group


class Plan(NamedTuple):
    """Everything to measure about one method's neurons of some facts, all of them in one view."""

    label: str
    scored: MethodScores
    evaluator: Evaluator
    targets: Sequence[Candidate]
    cells: list[Cell]


@dataclass
class Measurement:
    """Rows of one chunk of facts. Outcomes are remembered while it lasts, so that methods share what they can.

    Parameters
    ----------
    settings : of the comparison.
    groups : texts of each fact's groups.
    """

    settings: Settings
    groups: Groups
    rows: list[dict[str, Any]] = field(default_factory=list)
    _strengths: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """The rows."""
        frame: pd.DataFrame = pd.DataFrame(self.rows)
        return frame

    def whole_ffn(self, evaluator: Evaluator, targets: Sequence[Candidate]) -> None:
        """Every feed-forward neuron at zero: in all layers, for control facts too, and in each layer alone."""
        model = evaluator.model
        self._without_ffn(evaluator, targets, "all", None, "target")
        self._without_ffn(evaluator, targets, "all", None, "other_relation")
        for layer in range(model.n_layers if model.n_layers > 1 else 0):
            self._without_ffn(evaluator, targets, f"layer {layer}", [layer], "target")

    def _without_ffn(
        self,
        evaluator: Evaluator,
        targets: Sequence[Candidate],
        selection: str,
        layers: list[int] | None,
        group: Group,
    ) -> None:
        texts = [text for c in targets for text in self.groups[c.fact.id][group]]
        before = iter(evaluator.run([Job(text, INTACT, 1.0) for text in texts]))
        after = iter(evaluator.without_ffn(texts, layers))
        model = evaluator.model
        size = model.n_neurons * (model.n_layers if layers is None else len(layers))
        for c in targets:
            cell = Cell(c, WHOLE_FFN, selection, "method", INTACT, "suppress", Change(0.0), group)
            if self._texts(cell):
                self._add(cell, size, before, after)

    def dropout(self, evaluator: Evaluator, targets: Sequence[Candidate]) -> None:
        """Random shares of all neurons at zero: what a model that was trained with dropout does not care about."""
        model = evaluator.model
        total = model.n_layers * model.n_neurons
        cells = []
        for c in targets:
            for share in self.settings.dropout:
                rng = numpy_generator(self.settings.seed, DROPOUT, c.fact.id, share)
                drawn = rng.permutation(total)[: max(1, round(share * total))]
                neurons = NeuronSet(Neuron(*divmod(int(i), model.n_neurons)) for i in drawn)
                selection = f"{share:.3g}"
                for group in DROPPED_ON:
                    cells.append(Cell(c, DROPOUT, selection, "random", neurons, "suppress", Change(0.0), group))
        self._measure(cells, evaluator)

    def plan(
        self,
        label: str,
        scored: MethodScores,
        evaluator: Evaluator,
        interventions: Interventions,
        targets: Sequence[Candidate],
        relations: Mapping[str, str],
    ) -> Plan:
        """What is to be measured about one method's neurons of some facts."""
        cells = []
        for selection, sets in scored.sets.items():
            most = max((len(neurons) for neurons in sets.values()), default=0)
            lowest = {c.fact.id: scored.lowest(c.fact.id, most) for c in targets}
            selected = SelectedNeurons(evaluator.model, sets, relations, lowest, self.settings.seed)
            for c in targets:
                for intervention in self.settings.interventions:
                    cells += self._cells(c, label, selection, selected, intervention, interventions)
        return Plan(label, scored, evaluator, targets, cells)

    def methods(self, plans: Sequence[Plan]) -> None:
        """Measure what is planned, the cells of all methods in one go: a text needs one clean pass then, not many."""
        for evaluator in {id(plan.evaluator): plan.evaluator for plan in plans}.values():
            cells = [cell for plan in plans if plan.evaluator is evaluator for cell in plan.cells]
            evaluator.run(self._jobs(cells))
        for plan in plans:
            self._measure(plan.cells, plan.evaluator)
            if self.settings.curves and not isinstance(plan.evaluator.model, UnitModel):
                self._curves(plan.label, plan.scored, plan.evaluator, plan.targets)

    def _curves(self, label: str, scored: MethodScores, evaluator: Evaluator, targets: Sequence[Candidate]) -> None:
        """Without the method's best neurons, and with nothing but them, at every share of all neurons."""
        for c in targets:
            texts = self.groups[c.fact.id]["target"]
            names, masks = masks_of(scored.means[c.fact.id])
            outcomes = curve_outcomes(evaluator, texts, masks)
            before = outcomes[names.index(f"{DELETE} {0.0}")]
            for name, after, mask in zip(names, outcomes, masks, strict=True):
                curve, share = name.split()
                cell = Cell(c, label, CURVE + share, "method", INTACT, curve, NOTHING, "target")
                size = int(mask.sum() if curve == KEEP else (1 - mask).sum())
                self._add(cell, size, iter(before), iter(after), CURVE_METRICS)

    def _cells(
        self,
        target: Candidate,
        label: str,
        selection: str,
        selected: SelectedNeurons,
        intervention: str,
        interventions: Interventions,
    ) -> list[Cell]:
        """The method's own neurons on all groups, and its controls on the fact itself."""
        kinds = [k for k in self.settings.controls if selection == "refined" or k in BUDGET_CONTROLS]
        cells = []
        for kind in ("method", *kinds):
            neurons = self._neurons(kind, target, selected, intervention)
            if neurons is None:
                continue
            change = interventions.of(intervention, target, neurons)
            if change is None:
                continue
            # What control neurons do to other facts says nothing about the method: the fact alone is asked.
            groups = GROUPS if kind == "method" else ("target",)
            for group in groups:
                cells.append(Cell(target, label, selection, kind, neurons, intervention, change, group))
        return cells

    def _neurons(self, kind: str, target: Candidate, selected: SelectedNeurons, intervention: str) -> NeuronSet | None:
        """The method's neurons or a control set of them; None where there is no such control."""
        fact = target.fact.id
        if kind == "method":
            return selected.sets[fact]
        if kind != "random_matched" or isinstance(selected.model, UnitModel):
            return selected.control(kind, fact)
        if fact not in self._strengths:
            self._strengths[fact] = strengths(selected.model, target.prompts)
        # Matched on how much neurons write, or for amplification on the size of their gradients.
        write, slope = self._strengths[fact]
        return selected.control(kind, fact, slope if intervention.startswith("amplify") else write)

    def _measure(self, cells: Sequence[Cell], evaluator: Evaluator) -> None:
        """Run all cells in one go, then read off the rows."""
        outcomes = evaluator.run(self._jobs(cells))
        half = len(outcomes) // 2
        after, before = iter(outcomes[:half]), iter(outcomes[half:])
        for cell in cells:
            if self._texts(cell):
                self._add(cell, len(cell.neurons), before, after)

    def _texts(self, cell: Cell) -> tuple[Text, ...]:
        return self.groups[cell.target.fact.id][cell.group]

    def _jobs(self, cells: Sequence[Cell]) -> list[Job]:
        """Every cell's texts under its change, then all of them as the model is."""
        jobs = [Job(text, cell.neurons, *cell.change) for cell in cells for text in self._texts(cell)]
        return [*jobs, *(Job(job.text, INTACT, 1.0) for job in jobs)]

    def _add(
        self,
        cell: Cell,
        size: int,
        before: Iterator[Outcome],
        after: Iterator[Outcome],
        metrics: Sequence[str] | None = None,
    ) -> None:
        """Rows of a cell from the next outcomes, one for each of its texts.

        Parameters
        ----------
        size : number of neurons that were changed.
        metrics : which to keep; all if not given.
        """
        texts = self._texts(cell)
        found = effect([next(before) for _ in texts], [next(after) for _ in texts])
        common = {
            "fact": cell.target.fact.id,
            "relation": cell.target.fact.relation,
            "method": cell.method,
            "selection": cell.selection,
            "neurons": cell.kind,
            "n_neurons": size,
            "intervention": cell.intervention,
            "group": cell.group,
            "n_prompts": len(texts),
        }
        for metric in metrics or found:
            self.rows.append(common | {"metric": metric, "value": found[metric]})


def chunks(targets: Sequence[Candidate], size: int, whole_relations: bool = False) -> list[tuple[Candidate, ...]]:
    """Facts in order, in chunks of about ``size``; of whole relations, so that refinement can adapt to a relation."""
    if not whole_relations:
        return [tuple(targets[i : i + size]) for i in range(0, len(targets), size)]
    found: list[tuple[Candidate, ...]] = [()]
    for relation in dict.fromkeys(c.fact.relation for c in targets):
        members = tuple(c for c in targets if c.fact.relation == relation)
        if found[-1] and len(found[-1]) + len(members) > size:
            found.append(())
        found[-1] += members
    return found


def nothing_measured() -> pd.DataFrame:
    """Rows of a run that was stopped before the first chunk was finished: none, with the usual columns."""
    dtypes = {column: np.float64 if column == "value" else object for column in ROW}
    frame: pd.DataFrame = pd.DataFrame({column: pd.Series(dtype=dtype) for column, dtype in dtypes.items()})
    return frame
