"""A comparison in progress: two stages, in units that are finished as a whole or not at all."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from kn_attrib.evaluation.agreement import agreement
from kn_attrib.evaluation.changes import Changes
from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.controls import group_prompts
from kn_attrib.evaluation.effects import Evaluator
from kn_attrib.evaluation.journal import Entry, Journal
from kn_attrib.evaluation.measuring import Measurement, Plan, chunks, nothing_measured
from kn_attrib.evaluation.parts import Part, Parts
from kn_attrib.evaluation.plain_text import given_sentences, plain_texts, sentences_of
from kn_attrib.evaluation.provenance import manifest_of
from kn_attrib.evaluation.scored import Fitted, Scored, joined
from kn_attrib.evaluation.selection import USED, Candidate, Selection, select_facts
from kn_attrib.evaluation.settings import Settings
from kn_attrib.facts import FactSet
from kn_attrib.model import NeuronModel
from kn_attrib.prompts import Prompt, Text, causes
from kn_attrib.scoring import checked, fit
from kn_attrib.store import versions
from kn_attrib.unit_methods import Method

SCORED_AT_ONCE, MEASURED_AT_ONCE = 64, 17
"""Facts of one unit of work: of scoring (more where a relation has more), and of interventions."""
PROBED = 8


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
        started = time.perf_counter()
        self.journal.open(self._identity())
        selection = self._select()
        parts = Parts(self._evaluator(), selection, self._contrast(selection))
        scored: dict[str, Scored] = {}
        rows: list[pd.DataFrame] = []
        try:
            self._probe(parts)
            self._score(parts, scored)
            self._intervene(parts, scored, rows)
        except KeyboardInterrupt as interrupt:
            raise ComparisonInterrupted(self._result(selection, scored, rows, started, complete=False)) from interrupt
        return self._result(selection, scored, rows, started, complete=True)

    def _identity(self) -> dict[str, Any]:
        """What the results depend on."""
        return {
            "model": [self.model.digest, self.model.dtype_name, str(self.model.device)],
            "facts": self.facts.digest,
            "settings": asdict(self.settings),
            "methods": {label: [m.scorer.name, m.scorer.params(), str(m.units)] for label, m in self.asked.items()},
            "versions": versions(),
        }

    def _evaluator(self) -> Evaluator:
        return Evaluator(self.model, self.settings.max_rows, self.settings.normalised)

    def _probe(self, parts: Parts) -> None:
        """Ask every method for one prompt, so that a faulty one is found at once and not after hours."""
        first, *others = parts.selection.targets
        queries = first.prompts[0].queries[:1]
        contrast = [query for c in others[:PROBED] for query in c.prompts[0].queries]
        _, batch = next(iter(self.model.batches(queries)))
        for method in self.asked.values():
            model = parts.of(method.units)[0].model
            checked(fit(method.scorer, model, queries, contrast), model, batch)

    def _contrast(self, selection: Selection) -> list[Prompt]:
        """Attribution queries of known facts that are not scored, a few of each relation."""
        taken: Counter[str] = Counter()
        queries: list[Prompt] = []
        for c in selection.pool:
            if c.status != USED and taken[c.fact.relation] < self.settings.contrast_facts:
                taken[c.fact.relation] += 1
                queries += [query for text in c.prompts for query in text.queries]
        return queries

    @contextmanager
    def _bar(self, what: str, total: int | None) -> Iterator[Callable[[int], object]]:
        # disable=None: bars only where somebody can see them.
        with tqdm(desc=what, total=total, disable=None if self.progress else True, leave=False) as bar:
            yield bar.update

    def _select(self) -> Selection:
        s = self.settings
        with self._bar("asking the model for all facts", None) as update:
            selection = select_facts(
                self.model, self.facts, limit=s.limit, max_prompts=s.max_prompts,
                known_share=s.known_share, keep=s.keep, max_rows=s.max_rows, progress=update,
            )  # fmt: skip
        if not selection.targets:
            raise selection.no_facts(f"none of the {len(self.facts)} facts can be judged on {self.model.name}")
        return selection

    def _score(self, parts: Parts, scored: dict[str, Scored]) -> None:
        """First stage: every method's scores of all facts."""
        for number, (label, method) in enumerate(self.asked.items()):
            own = parts.of(method.units)
            found = []
            with self._bar(f"{label}: scoring prompts", sum(len(part.queries) for part in own)) as update:
                for p, part in enumerate(own):
                    others = [query for other in own if other is not part for query in other.queries]
                    fitted = Fitted(method.scorer, part, [*others, *parts.contrast])
                    for c, targets in enumerate(chunks(part.targets, SCORED_AT_ONCE, whole_relations=True)):

                        def work(fitted: Fitted = fitted, targets: tuple[Candidate, ...] = targets) -> Entry:
                            return fitted.score(targets, self.settings, update).to_entry()

                        found.append(Scored.of_entry(self.journal.get(f"scores-{number}-{p}-{c}", work)))
            scored[label] = joined(found, parts.cost[method.units])

    def _intervene(self, parts: Parts, scored: Mapping[str, Scored], rows: list[pd.DataFrame]) -> None:
        """Second stage: interventions on chunk after chunk of facts."""
        plain = self._plain_text(parts.selection)
        todo = chunks(parts.selection.targets, MEASURED_AT_ONCE)
        changes: dict[int, Changes] = {}
        with self._bar("intervening: methods x chunks of facts", len(todo) * len(self.asked)) as update:
            for number, targets in enumerate(todo):

                def work(targets: tuple[Candidate, ...] = targets) -> Entry:
                    return Entry(frame=self._measure(parts, scored, targets, plain, changes, update))

                rows.append(self.journal.get(f"rows-{number}", work).frame)

    def _measure(
        self, parts: Parts, scored: Mapping[str, Scored], targets: Sequence[Candidate], plain: Sequence[Text],
        changes: dict[int, Changes], progress: Callable[[int], object],
    ) -> pd.DataFrame:  # fmt: skip
        s, pool = self.settings, parts.selection.pool
        groups = {c.fact.id: group_prompts(c, pool, s.control_facts, s.seed, plain) for c in targets}
        measurement = Measurement(s, groups)
        # New for each chunk: what is measured must not depend on what was measured before a restart.
        evaluators: dict[int, Evaluator] = {}

        def evaluator_of(part: Part) -> Evaluator:
            return evaluators.setdefault(id(part), replace(part.evaluator, _known={}))

        (whole,) = parts.of(None)
        measurement.whole_ffn(evaluator_of(whole), targets)
        measurement.dropout(evaluator_of(whole), targets)
        relations = {c.fact.id: c.fact.relation for c in parts.selection.targets}
        plans: list[Plan] = []
        for label, method in self.asked.items():
            for part in parts.of(method.units):
                members = {c.fact.id for c in part.targets}
                some = [c for c in targets if c.fact.id in members]
                usual = changes.setdefault(id(part.model), Changes(part.model, pool, s.factor, s.seed))
                plans.append(measurement.plan(label, scored[label], evaluator_of(part), usual, some, relations))
        measurement.methods(plans)
        progress(len(self.asked))
        return measurement.frame()

    def _plain_text(self, selection: Selection) -> tuple[Text, ...]:
        s = self.settings
        given = sentences_of(selection.pool, s.seed) if s.plain_text is None else given_sentences(s.plain_text)
        return plain_texts(self.model, given, s.seed)

    def _result(
        self, selection: Selection, scored: Mapping[str, Scored], rows: Sequence[pd.DataFrame], started: float,
        complete: bool,
    ) -> Comparison:  # fmt: skip
        frames = [frame for frame in rows if not frame.empty]
        relation = {c.fact.id: c.fact.relation for c in selection.targets}
        neurons = [
            {"method": label, "selection": name, "fact": fact, "relation": relation[fact], "layer": n.layer,
             "neuron": n.index}
            for label, each in scored.items() for name, found in each.sets.items() for fact, own in found.items()
            for n in own
        ]  # fmt: skip
        measured = set(pd.concat(frames).method) if frames else set()
        methods = [self._describe(label, scored[label]) for label in self.asked if label in measured]
        manifest = manifest_of(
            self.model, self.facts, started, complete=complete, settings=asdict(self.settings), methods=methods
        )
        manifest["facts"]["left_out_texts"] = causes([s for c in selection.candidates for s in c.skipped])
        return Comparison(
            pd.concat(frames, ignore_index=True) if frames else nothing_measured(),
            selection.to_frame(),
            pd.DataFrame(neurons, columns=["method", "selection", "fact", "relation", "layer", "neuron"]),
            manifest,
            agreement(scored, relation, {m["method"]: m["units"] for m in methods})
            if methods
            else agreement({}, {}, {}),
        )

    def _describe(self, label: str, scored: Scored) -> dict[str, Any]:
        method = self.asked[label]
        stable = [value for value in scored.stability.values() if not math.isnan(value)]
        return {
            "method": label, "name": method.scorer.name, "params": method.scorer.params(),
            "units": str(method.units or "neurons"), "units_per_layer": next(iter(scored.means.values())).shape[1],
            "unit_params": method.units.params() if method.units else {}, **scored.spent, "prompts": scored.prompts,
            "seconds_per_prompt": scored.spent["seconds"] / scored.prompts,
            "median_relative_gap": None if scored.gaps is None else float(scored.gaps.median()),
            "stability": sum(stable) / len(stable) if stable else None,
        }  # fmt: skip
