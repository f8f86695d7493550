"""A comparison in progress: two stages, in units that are finished as a whole or not at all."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from kn_attrib.evaluation.comparison.agreement import agreement
from kn_attrib.evaluation.comparison.control_facts import group_prompts
from kn_attrib.evaluation.comparison.effect_stage import Measurement, Plan, chunks, nothing_measured
from kn_attrib.evaluation.comparison.score_stage import (
    FittedScorer,
    MethodScores,
    joined_scores,
    warn_of_constant,
    with_specific,
)
from kn_attrib.evaluation.comparison.settings import Settings
from kn_attrib.evaluation.comparison.views import FactsInView, Views
from kn_attrib.evaluation.measure.interventions import Interventions
from kn_attrib.evaluation.measure.known_facts import Candidate, Selection, queries_of, select_facts
from kn_attrib.evaluation.measure.outcomes import Evaluator
from kn_attrib.evaluation.measure.plain_text import given_sentences, plain_texts, sentences_of
from kn_attrib.evaluation.records.journal import Entry, Journal
from kn_attrib.evaluation.records.progress import progress_bar
from kn_attrib.evaluation.records.provenance import identity_of, manifest_of
from kn_attrib.evaluation.report.comparison import Comparison
from kn_attrib.evaluation.vocabulary import USED
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Prompt, Text, causes
from kn_attrib.models.cost import cost_text
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.forecast import warn_if_long
from kn_attrib.scoring.guarded import guarded
from kn_attrib.scoring.method_specs import Method
from kn_attrib.scoring.score import checked, fit

LOG = logging.getLogger(__name__)
SCORED_AT_ONCE, MEASURED_AT_ONCE = 64, 17
"""Facts of one unit of work: of scoring (more where a relation has more), and of interventions."""
PROBED = 8
"""Facts that methods which compare facts are given as others when they are probed."""


class ComparisonInterrupted(KeyboardInterrupt):
    """A comparison was stopped by hand; ``comparison`` holds everything that was finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("the comparison was interrupted")
        self.comparison = comparison


@dataclass
class Run:
    """One comparison in progress: all methods score all facts, then interventions go through the facts in chunks.

    Parameters
    ----------
    model, facts, settings : of the comparison.
    asked : methods by label.
    progress : show bars.
    journal : keeps what is finished.
    """

    model: NeuronModel
    facts: FactSet
    asked: dict[str, Method]
    settings: Settings
    progress: bool
    journal: Journal = field(default_factory=Journal)

    def execute(self) -> Comparison:
        """Run both stages; see `compare`."""
        self.journal.open(self.identity())
        with self.journal.kept():
            return self._execute(time.perf_counter())

    def identity(self) -> dict[str, Any]:
        """What the results depend on."""
        return identity_of(self.model, self.facts, asdict(self.settings), self.asked)

    def _execute(self, started: float) -> Comparison:
        selection = self._select()
        views = Views(self._evaluator(), selection, self._contrast(selection))
        scored: dict[str, MethodScores] = {}
        rows: list[pd.DataFrame] = []
        try:
            self._probe(views)
            self._score(views, scored)
            self._intervene(views, scored, rows)
        except KeyboardInterrupt as interrupt:
            raise ComparisonInterrupted(self._result(selection, scored, rows, started, complete=False)) from interrupt
        return self._result(selection, scored, rows, started, complete=True)

    def _evaluator(self) -> Evaluator:
        return Evaluator(self.model, self.settings.max_rows, self.settings.normalised)

    def _probe(self, views: Views) -> None:
        """Ask every method for one prompt, so that a faulty one is found at once and not after hours."""
        first, *others = views.selection.targets
        queries = first.prompts[0].queries[:1]
        contrast = [query for c in others[:PROBED] for query in c.prompts[0].queries]
        _, batch = next(iter(self.model.batches(queries)))
        for method in self.asked.values():
            model = views.of(method.units)[0].model
            warn_if_long(model, method.scorer, queries_of(views.selection.targets))
            with guarded(method.scorer, model, thorough=True, blame=False):
                checked(fit(method.scorer, model, queries, contrast), model, batch)

    def _contrast(self, selection: Selection) -> list[Prompt]:
        """Attribution queries of known facts that are not scored, a few of each relation."""
        taken: Counter[str] = Counter()
        queries: list[Prompt] = []
        for c in selection.pool:
            if c.status != USED and taken[c.fact.relation] < self.settings.contrast_facts:
                taken[c.fact.relation] += 1
                queries += queries_of([c])
        return queries

    def _select(self) -> Selection:
        s = self.settings
        with progress_bar("asking the model for all facts", None, self.progress) as update:
            selection = select_facts(
                self.model,
                self.facts,
                limit=s.limit,
                max_prompts=s.max_prompts,
                known_share=s.known_share,
                keep=s.keep,
                max_rows=s.max_rows,
                progress=update,
            )
        if not selection.targets:
            raise selection.no_facts(f"none of the {len(self.facts)} facts can be judged on {self.model.name}")
        LOG.info("%s: %d of %d facts are used", self.model.name, len(selection.targets), len(self.facts))
        return selection

    def _score(self, views: Views, scored: dict[str, MethodScores]) -> None:
        """First stage: every method's scores of all facts."""
        for number, (label, method) in enumerate(self.asked.items()):
            in_views = views.of(method.units)
            parts: list[MethodScores] = []
            total = sum(len(view.queries) for view in in_views)
            with progress_bar(f"{label}: scoring prompts", total, self.progress) as update:
                for place, view in enumerate(in_views):
                    others = [query for other in in_views if other is not view for query in other.queries]
                    fitted = FittedScorer(method.scorer, view, [*others, *views.contrast])
                    parts += self._scores(f"scores-{number}-{place}", fitted, update)
            joined = joined_scores(parts, views.cost[method.units])
            warn_of_constant(label, joined)
            scored[label] = with_specific(joined, views.selection.relations)
            LOG.info("%s: %d prompts scored, %s", label, joined.prompts, cost_text(joined.spent))

    def _scores(self, name: str, fitted: FittedScorer, update: Callable[[int], object]) -> list[MethodScores]:
        """One method's scores of a view's facts, chunk by chunk."""
        parts = []
        for number, targets in enumerate(chunks(fitted.view.targets, SCORED_AT_ONCE, whole_relations=True)):

            def work(targets: tuple[Candidate, ...] = targets) -> Entry:
                return fitted.score(targets, self.settings, update).to_entry()

            parts.append(MethodScores.of_entry(self.journal.get(f"{name}-{number}", work)))
        return parts

    def _intervene(self, views: Views, scored: Mapping[str, MethodScores], rows: list[pd.DataFrame]) -> None:
        """Second stage: interventions on chunk after chunk of facts."""
        plain = self._plain_text(views.selection)
        todo = chunks(views.selection.targets, MEASURED_AT_ONCE)
        interventions: dict[int, Interventions] = {}
        with progress_bar(
            "intervening: methods x chunks of facts", len(todo) * len(self.asked), self.progress
        ) as update:
            for number, targets in enumerate(todo):

                def work(targets: tuple[Candidate, ...] = targets) -> Entry:
                    return Entry(frame=self._measure(views, scored, targets, plain, interventions, update))

                rows.append(self.journal.get(f"rows-{number}", work).frame)
                LOG.info("interventions: %d of %d chunks of facts are done", number + 1, len(todo))

    def _measure(
        self,
        views: Views,
        scored: Mapping[str, MethodScores],
        targets: Sequence[Candidate],
        plain: Sequence[Text],
        interventions: dict[int, Interventions],
        progress: Callable[[int], object],
    ) -> pd.DataFrame:
        """Rows of one chunk of facts.

        Parameters
        ----------
        plain : words of ordinary sentences.
        interventions : of each view so far, by the id of its model; filled as needed and shared by all chunks.
        """
        s, pool = self.settings, views.selection.pool
        groups = {c.fact.id: group_prompts(c, pool, s.control_facts, s.seed, plain) for c in targets}
        measurement = Measurement(s, groups)
        # Copies remember nothing. New for each chunk: what is measured must not depend on what was before a restart.
        evaluators: dict[int, Evaluator] = {}

        def evaluator_of(view: FactsInView) -> Evaluator:
            return evaluators.setdefault(id(view), replace(view.evaluator))

        (whole,) = views.of(None)
        measurement.whole_ffn(evaluator_of(whole), targets)
        measurement.dropout(evaluator_of(whole), targets)
        relations = views.selection.relations
        plans: list[Plan] = []
        for label, method in self.asked.items():
            for view in views.of(method.units):
                members = {c.fact.id for c in view.targets}
                here = [c for c in targets if c.fact.id in members]
                own = interventions.setdefault(id(view.model), Interventions(view.model, pool, s.factor, s.seed))
                plans.append(measurement.plan(label, scored[label], evaluator_of(view), own, here, relations))
        measurement.methods(plans)
        progress(len(self.asked))
        return measurement.frame()

    def _plain_text(self, selection: Selection) -> tuple[Text, ...]:
        s = self.settings
        given = sentences_of(selection.pool, s.seed) if s.plain_text is None else given_sentences(s.plain_text)
        return plain_texts(self.model, given, s.seed)

    def _result(
        self,
        selection: Selection,
        scored: Mapping[str, MethodScores],
        rows: Sequence[pd.DataFrame],
        started: float,
        complete: bool,
    ) -> Comparison:
        frames = [frame for frame in rows if not frame.empty]
        measured = pd.concat(frames, ignore_index=True) if frames else nothing_measured()
        finished = set(measured.method)
        methods = [self._describe(label, scored[label]) for label in self.asked if label in finished]
        units = {method["method"]: method["units"] for method in methods}
        manifest = manifest_of(
            self.model,
            self.facts,
            started,
            complete=complete,
            identity=self.journal.identity,
            settings=asdict(self.settings),
            methods=methods,
        )
        manifest["facts"]["left_out_texts"] = causes([s for c in selection.candidates for s in c.skipped])
        return Comparison(
            rows=measured,
            facts=selection.to_frame(),
            neurons=_neuron_table(scored, selection.relations),
            manifest=manifest,
            agreement=agreement(scored, selection.relations, units),
        )

    def _describe(self, label: str, scored: MethodScores) -> dict[str, Any]:
        """A method's record in the manifest."""
        method = self.asked[label]
        stable = [value for value in scored.stability.values() if not math.isnan(value)]
        return {
            "method": label,
            "name": method.scorer.name,
            "params": method.scorer.params(),
            "units": str(method.units or "neurons"),
            "units_per_layer": next(iter(scored.means.values())).shape[1],
            "unit_params": method.units.params() if method.units else {},
            **scored.spent,
            "prompts": scored.prompts,
            "seconds_per_prompt": scored.spent["seconds"] / scored.prompts,
            "median_relative_gap": None if scored.gaps is None else float(scored.gaps.median()),
            "stability": sum(stable) / len(stable) if stable else None,
            **({"put_back": list(scored.put_back)} if scored.put_back else {}),
        }


def _neuron_table(scored: Mapping[str, MethodScores], relations: Mapping[str, str]) -> pd.DataFrame:
    """All selected neurons, one a row."""
    rows = []
    for label, scores in scored.items():
        for selection, sets in scores.sets.items():
            for fact, neurons in sets.items():
                rows += [(label, selection, fact, relations[fact], n.layer, n.index) for n in neurons]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["method", "selection", "fact", "relation", "layer", "neuron"])
    return frame
