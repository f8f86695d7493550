"""`compare`: every method on the same facts, judged by interventions on held-out paraphrases and controls."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from kn_attrib.errors import FactError
from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.controls import GROUPS, NEURON_SETS, Group, control_set, group_prompts
from kn_attrib.evaluation.effects import INTACT, Evaluator, Job, effect
from kn_attrib.evaluation.parts import Part, Parts, measuring
from kn_attrib.evaluation.selection import USED, Candidate, Selection, select_facts
from kn_attrib.evaluation.settings import Settings
from kn_attrib.facts import Fact, FactSet, load_facts
from kn_attrib.model import NeuronModel
from kn_attrib.neurons import NeuronSet
from kn_attrib.prompts import Prompt, Text, causes
from kn_attrib.refine import Refinement, refine_all
from kn_attrib.scorer import Scorer
from kn_attrib.scores import NeuronScores, stack_scores
from kn_attrib.scoring import checked, fit, score_prompts
from kn_attrib.store import versions
from kn_attrib.unit_methods import Method, labelled, make_method

DEFAULT_METHODS = (
    "integrated_gradients",
    "layer_conductance",
    "layer_integrated_gradients",
    "gradient_x_activation",
    "ablation",
    "activation",
    "random",
)
WHOLE_FFN = "whole_ffn"
FACTS_AT_ONCE = 64
PROBED = 8


class ComparisonInterrupted(KeyboardInterrupt):
    """A comparison was stopped by hand; ``comparison`` holds everything that was finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("the comparison was interrupted")
        self.comparison = comparison


def compare(
    model: NeuronModel,
    facts: str | Path | Sequence[Fact],
    methods: Sequence[str | type[Scorer] | Scorer | Method] = DEFAULT_METHODS,
    *,
    budgets: Sequence[int] = (1, 5, 10, 20),
    refinement: str | None = None,
    factor: float = 2.0,
    control_facts: int = 5,
    limit: int | None = None,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    keep: Sequence[str] = (),
    seed: int = 0,
    max_rows: int = 1024,
    normalised: bool = False,
    contrast_facts: int = 8,
    progress: bool = True,
) -> Comparison:
    """Compare attribution methods on suppression and amplification, against control groups and control neurons.

    For every fact that the model knows, each method scores all neurons on the fact's ``prompts``; its refined set and
    its top ``k`` are then suppressed (×0) and amplified (×``factor``) at the answer position, and the change of the
    answer's probability is measured on the fact's ``held_out`` paraphrases and on three control groups, next to
    equally many random neurons.

    Parameters
    ----------
    model : from `load_model`.
    facts : anything `load_facts` reads; facts beyond ``limit`` still serve as controls.
    methods : names, ``"name:preset"``, classes or scorers; ``"name@nmf"``, ``"name@pca(k=8)"``, ``"name@heads"`` score
        other units than neurons (see `kn_attrib.unit_methods`), and skip budgets larger than their number.
    budgets : numbers of neurons for the equal-budget comparison.
    refinement : a preset name, default the paper's thresholds with each method's own threshold.
    factor : amplification.
    control_facts : most facts in each control group of a fact.
    limit : most facts to score.
    max_prompts : most attribution prompts per fact.
    known_share : a fact is known if its answer is on top in at least this share of its attribution prompts.
    keep : facts to keep although ``"unknown"``, ``"ambiguous"`` or ``"leaking"`` (answer inside the subject).
    seed : of control facts, control neurons and bootstrap.
    max_rows : most queries in one forward pass (an answer of several tokens is several queries).
    normalised : an answer's probability is the geometric mean of its tokens' probabilities instead of their product.
    contrast_facts : further known facts of each relation for methods that compare facts with one another.
    progress : show progress bars.

    Returns
    -------
    Comparison with flat rows ``(fact, method, selection, neurons, intervention, group, metric, value)``.

    Raises
    ------
    NeuronError : a budget is larger than the model.
    MethodError : a method is unknown or faulty, or cannot score the units that it is asked for.
    FactError : no fact can be judged (the reasons are counted).
    ComparisonInterrupted : on Ctrl-C, holding what was finished.
    """
    settings = Settings(
        tuple(budgets),
        refinement,
        factor,
        control_facts,
        limit,
        max_prompts,
        known_share,
        tuple(keep),
        seed,
        max_rows,
        normalised,
        contrast_facts,
    )
    settings.check(model)
    asked = labelled([make_method(method) for method in methods])
    return _Run(model, load_facts(facts), asked, settings, progress).execute()


@dataclass
class _Run:
    """One comparison in progress: rows grow method by method, so that an interruption keeps what is done."""

    model: NeuronModel
    facts: FactSet
    asked: dict[str, Method]
    settings: Settings
    progress: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    neurons: list[dict[str, Any]] = field(default_factory=list)
    methods: list[dict[str, Any]] = field(default_factory=list)

    def execute(self) -> Comparison:
        started = time.perf_counter()
        selection = self._select()
        groups = {c.fact.id: group_prompts(c, selection.pool, self.settings.control_facts, self.settings.seed)
                  for c in selection.targets}  # fmt: skip
        evaluator = Evaluator(self.model, self.settings.max_rows, self.settings.normalised)
        parts = Parts(evaluator, selection, self._contrast(selection))
        try:
            self._probe(parts)
            self._whole_ffn(evaluator, selection, groups)
            for label, method in self.asked.items():
                self._method(label, method, parts, groups)
        except KeyboardInterrupt as interrupt:
            raise ComparisonInterrupted(self._result(selection, started, complete=False)) from interrupt
        return self._result(selection, started, complete=True)

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
            counts = pd.Series([c.status for c in selection.candidates]).value_counts().to_dict()
            first = next((c.skipped[0].reason for c in selection.candidates if c.skipped), "")
            raise FactError(
                f"none of the {len(self.facts)} facts can be judged on {self.model.name}: {counts}. {first}".strip()
            )
        return selection

    def _whole_ffn(
        self, evaluator: Evaluator, selection: Selection, groups: dict[str, dict[Group, tuple[Text, ...]]]
    ) -> None:
        prompts = [p for c in selection.targets for p in groups[c.fact.id]["target"]]
        after = iter(evaluator.without_ffn(prompts))
        before = iter(evaluator.run([Job(p, INTACT, 1.0) for p in prompts]))
        for c in selection.targets:
            n = len(groups[c.fact.id]["target"])
            found = effect([next(before) for _ in range(n)], [next(after) for _ in range(n)])
            size = self.model.n_layers * self.model.n_neurons
            self._add(c.fact, WHOLE_FFN, "all", "method", size, "suppress", "target", n, found)

    def _method(
        self, label: str, method: Method, parts: Parts, groups: dict[str, dict[Group, tuple[Text, ...]]]
    ) -> None:
        own = parts.of(method.units)
        # What fitting units costs is a part of what scoring them costs.
        with measuring(self.model, parts.cost[method.units]) as cost:
            scores = self._scores(label, method.scorer, own, parts.contrast)
        sets = self._sets(scores, method.scorer)
        with self._bar(f"{label}: intervening on facts", sum(len(part.targets) for part in own)) as update:
            for part in own:
                for start in range(0, len(part.targets), FACTS_AT_ONCE):
                    some = part.targets[start : start + FACTS_AT_ONCE]
                    self._intervene(label, some, sets, part.evaluator, groups)
                    update(len(some))
        self._describe(label, method, scores, sets, cost)

    def _scores(self, label: str, scorer: Scorer, parts: Sequence[Part], contrast: Sequence[Prompt]) -> NeuronScores:
        found = []
        with self._bar(f"{label}: scoring prompts", sum(len(part.queries) for part in parts)) as update:
            for part in parts:
                others = [query for other in parts if other is not part for query in other.queries]
                fitted = fit(scorer, part.model, part.queries, [*others, *contrast])
                found.append(score_prompts(part.model, part.queries, fitted, progress=update))
        return stack_scores(found)

    def _sets(self, scores: NeuronScores, scorer: Scorer) -> dict[str, dict[str, NeuronSet]]:
        refinement = (
            Refinement.preset(self.settings.refinement)
            if self.settings.refinement
            else Refinement(threshold=scorer.threshold)
        )
        chosen = {"refined": refinement} | {
            f"k={k}": replace(refinement, k=k) for k in self.settings.budgets if k <= math.prod(scores.shape[1:])
        }
        return {name: refine_all(scores, each) for name, each in chosen.items()}

    def _intervene(
        self,
        label: str,
        targets: Sequence[Candidate],
        sets: dict[str, dict[str, NeuronSet]],
        evaluator: Evaluator,
        groups: dict[str, dict[Group, tuple[Text, ...]]],
    ) -> None:
        """Run a few facts' interventions in one go, then read off the rows."""
        s = self.settings
        plan = []
        for c in targets:
            for selection, found in sets.items():
                own = found[c.fact.id]
                for kind in NEURON_SETS:
                    neurons = own if kind == "method" else control_set(kind, own, evaluator.model, s.seed, c.fact.id)
                    for name, factor in (("suppress", 0.0), ("amplify", s.factor)):
                        # What random neurons do to other facts says nothing about the method: the fact alone is asked.
                        measured = GROUPS if kind == "method" else ("target",)
                        plan += [(c, selection, kind, neurons, name, factor, group) for group in measured]
        jobs = [Job(p, neurons, factor) for c, _, _, neurons, _, factor, g in plan for p in groups[c.fact.id][g]]
        outcomes = evaluator.run([*jobs, *(Job(job.text, INTACT, 1.0) for job in jobs)])
        after, before = iter(outcomes[: len(jobs)]), iter(outcomes[len(jobs) :])
        for c, selection, kind, neurons, name, _, group in plan:
            n = len(groups[c.fact.id][group])
            if n:
                metrics = effect([next(before) for _ in range(n)], [next(after) for _ in range(n)])
                self._add(c.fact, label, selection, kind, len(neurons), name, group, n, metrics)

    def _add(
        self, fact: Fact, method: str, selection: str, neurons: str, size: int, intervention: str, group: str,
        n_prompts: int, found: dict[str, float],
    ) -> None:  # fmt: skip
        common = {
            "fact": fact.id, "relation": fact.relation, "method": method, "selection": selection, "neurons": neurons,
            "n_neurons": size, "intervention": intervention, "group": group, "n_prompts": n_prompts,
        }  # fmt: skip
        self.rows += [common | {"metric": metric, "value": value} for metric, value in found.items()]

    def _describe(
        self, label: str, method: Method, scores: NeuronScores, sets: dict[str, dict[str, NeuronSet]],
        cost: dict[str, float],
    ) -> None:  # fmt: skip
        relation = dict(zip(scores.facts, scores.relations, strict=True))
        self.neurons += [
            {"method": label, "selection": name, "fact": fact, "relation": relation[fact], "layer": n.layer,
             "neuron": n.index}
            for name, found in sets.items() for fact, neurons in found.items() for n in neurons
        ]  # fmt: skip
        gap = None
        if scores.gap is not None and scores.difference is not None:
            gap = float(np.median((scores.gap.abs() / scores.difference.abs().clamp_min(1e-12)).numpy()))
        self.methods.append(
            {"method": label, "name": method.scorer.name, "params": method.scorer.params(),
             "units": str(method.units or "neurons"), "units_per_layer": scores.shape[2],
             "unit_params": method.units.params() if method.units else {}, **cost, "prompts": len(scores),
             "seconds_per_prompt": cost["seconds"] / len(scores), "median_relative_gap": gap}
        )  # fmt: skip

    def _result(self, selection: Selection, started: float, complete: bool) -> Comparison:
        manifest = {
            "complete": complete,
            "model": {"name": self.model.name, "class": type(self.model.model).__name__, "kind": self.model.kind,
                      "layers": self.model.n_layers, "neurons_per_layer": self.model.n_neurons,
                      "dtype": self.model.dtype_name, "device": str(self.model.device),
                      "sha256": self.model.digest},
            "facts": {"sha256": self.facts.digest, "n": len(self.facts),
                      "left_out_texts": causes([s for c in selection.candidates for s in c.skipped])},
            "settings": asdict(self.settings),
            "methods": self.methods,
            "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        return Comparison(pd.DataFrame(self.rows), selection.to_frame(), pd.DataFrame(self.neurons), manifest)
