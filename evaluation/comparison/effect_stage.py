"""The second stage of a comparison: interventions on some facts, as flat rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from kn_attrib.evaluation.measure.outcomes import INTACT, Evaluator, Job
from kn_attrib.evaluation.vocabulary import BUDGET_CONTROLS, CURVE, DELETE, DROPOUT, GROUPS, KEEP, WHOLE_FFN, Group
from kn_attrib.facts.prompts import Text
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import numpy_generator
from kn_attrib.units.view import UnitModel

Groups = Mapping[str, Mapping[Group, tuple[Text, ...]]]
"""Fact -> group -> its texts."""
DROPPED_ON: tuple[Group, ...] = ("target", "other_relation", "plain_text")


class Cell(NamedTuple):
    """One thing to measure: neurons of a fact under a change, on a group of texts."""

    fact: Candidate
    method: str
    selection: str
    kind: str
    neurons: NeuronSet
    intervention: str
    change: Change
    group: Group


class Plan(NamedTuple):
    """Everything to measure about one method's neurons of some facts."""

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
        """Every feed-forward neuron at zero, in all layers and in each alone."""
        model = evaluator.model
        layers: list[tuple[str, list[int] | None]] = [("all", None)]
        layers += [(f"layer {layer}", [layer]) for layer in range(model.n_layers) if model.n_layers > 1]
        prompts = [p for c in targets for p in self.groups[c.fact.id]["target"]]
        before = evaluator.run([Job(p, INTACT, 1.0) for p in prompts])
        for selection, which in layers:
            outcomes = zip(before, evaluator.without_ffn(prompts, which), strict=True)
            size = model.n_neurons * (model.n_layers if which is None else 1)
            for c in targets:
                own = [next(outcomes) for _ in self.groups[c.fact.id]["target"]]
                found = effect([b for b, _ in own], [a for _, a in own])
                cell = Cell(c, WHOLE_FFN, selection, "method", INTACT, "suppress", Change(0.0), "target")
                self._add(cell, size, len(own), found)

    def dropout(self, evaluator: Evaluator, targets: Sequence[Candidate]) -> None:
        """Random shares of all neurons at zero: what a model that was trained with dropout does not care about."""
        model, plan = evaluator.model, []
        total = model.n_layers * model.n_neurons
        for c in targets:
            for share in self.settings.dropout:
                rng = numpy_generator(self.settings.seed, DROPOUT, c.fact.id, share)
                drawn = rng.permutation(total)[: max(1, round(share * total))]
                neurons = NeuronSet(Neuron(*divmod(int(i), model.n_neurons)) for i in drawn)
                plan += [
                    Cell(c, DROPOUT, f"{share:.3g}", "random", neurons, "suppress", Change(0.0), group)
                    for group in DROPPED_ON
                ]
        self._measure(plan, evaluator)

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
        model, cells = evaluator.model, []
        for selection, sets in scored.sets.items():
            most = max((len(s) for s in sets.values()), default=0)
            chosen = SelectedNeurons(
                model, sets, relations, {c.fact.id: scored.lowest(c.fact.id, most) for c in targets},
                self.settings.seed,
            )  # fmt: skip
            for c in targets:
                for intervention in self.settings.interventions:
                    cells += self._cells(c, label, selection, chosen, intervention, interventions)
        return Plan(label, scored, evaluator, targets, cells)

    def methods(self, plans: Sequence[Plan]) -> None:
        """Measure what is planned, the cells of all methods in one go: a text needs one clean pass then, not many."""
        for evaluator in {id(plan.evaluator): plan.evaluator for plan in plans}.values():
            evaluator.run(self._jobs([cell for plan in plans if plan.evaluator is evaluator for cell in plan.cells]))
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
                found = effect(before, after)
                # Ranks and top answers are not looked at here.
                self._add(cell, size, len(texts), {m: found[m] for m in ("p_before", "p_after", "delta_logprob")})

    def _cells(
        self,
        c: Candidate,
        label: str,
        selection: str,
        chosen: SelectedNeurons,
        intervention: str,
        interventions: Interventions,
    ) -> list[Cell]:
        kinds = [k for k in self.settings.controls if selection == "refined" or k in BUDGET_CONTROLS]
        cells = []
        for kind in ("method", *kinds):
            neurons = chosen.sets[c.fact.id]
            if kind != "method":
                control = chosen.control(kind, c.fact.id, self._strength(kind, c, chosen, intervention))
                if control is None:
                    continue
                neurons = control
            change = interventions.of(intervention, c, neurons)
            if change is not None:
                # What control neurons do to other facts says nothing about the method: the fact alone is asked.
                measured = GROUPS if kind == "method" else ("target",)
                cells += [Cell(c, label, selection, kind, neurons, intervention, change, group) for group in measured]
        return cells

    def _strength(self, kind: str, c: Candidate, chosen: SelectedNeurons, intervention: str) -> Tensor | None:
        """What a matched control is matched on: how much neurons write, or for amplification their gradients."""
        if kind != "random_matched" or isinstance(chosen.model, UnitModel):
            return None
        if c.fact.id not in self._strengths:
            self._strengths[c.fact.id] = strengths(chosen.model, c.prompts)
        return self._strengths[c.fact.id][intervention.startswith("amplify")]

    def _measure(self, plan: Sequence[Cell], evaluator: Evaluator) -> None:
        """Run all cells in one go, then read off the rows."""
        outcomes = evaluator.run(self._jobs(plan))
        half = len(outcomes) // 2
        after, before = iter(outcomes[:half]), iter(outcomes[half:])
        for cell in plan:
            own = self._texts(cell)
            if own:
                found = effect([next(before) for _ in own], [next(after) for _ in own])
                self._add(cell, len(cell.neurons), len(own), found)

    def _texts(self, cell: Cell) -> tuple[Text, ...]:
        return self.groups[cell.fact.fact.id][cell.group]

    def _jobs(self, plan: Sequence[Cell]) -> list[Job]:
        """Every cell's texts under its change, then all of them as the model is."""
        jobs = [Job(text, cell.neurons, *cell.change) for cell in plan for text in self._texts(cell)]
        return [*jobs, *(Job(job.text, INTACT, 1.0) for job in jobs)]

    def _add(self, cell: Cell, size: int, n_prompts: int, found: Mapping[str, float]) -> None:
        common = {
            "fact": cell.fact.fact.id, "relation": cell.fact.fact.relation, "method": cell.method,
            "selection": cell.selection, "neurons": cell.kind, "n_neurons": size,
            "intervention": cell.intervention, "group": cell.group, "n_prompts": n_prompts,
        }  # fmt: skip
        self.rows += [common | {"metric": metric, "value": value} for metric, value in found.items()]


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
    columns = ["fact", "relation", "method", "selection", "neurons", "n_neurons", "intervention", "group",
               "n_prompts", "metric", "value"]  # fmt: skip
    frame: pd.DataFrame = pd.DataFrame({c: pd.Series(dtype=np.float64 if c == "value" else object) for c in columns})
    return frame
