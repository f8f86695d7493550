"""Causal tracing as an experiment: the effect of each restored state, and what it says of which neurons matter."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from kn_attrib.errors import PromptError
from kn_attrib.evaluation.experiment import Experiment, Facts, Methods, Rows
from kn_attrib.evaluation.measure.known_facts import Candidate, queries_of
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.evaluation.tracing.cells import RoleCell, cell_rows, prompt_row, role_means, untraced
from kn_attrib.evaluation.tracing.figures import trace_figures
from kn_attrib.evaluation.tracing.profiles import (
    ALL_NEURONS,
    REFINED,
    SCORES,
    SUPPRESSED,
    layers_of,
    refined_shares,
    score_shares,
    suppression,
    top_of_each_layer,
)
from kn_attrib.evaluation.tracing.result import Trace
from kn_attrib.evaluation.tracing.roles import roles_of
from kn_attrib.evaluation.tracing.settings import NOISE, Severed, TracingSettings
from kn_attrib.evaluation.tracing.tables import trace_tables
from kn_attrib.evaluation.tracing.trace_rows import CELLS, FACTS, INDIRECT, PROMPTS, TRACED, TRACING, WRONG
from kn_attrib.evaluation.vocabulary import USED
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.corrupted_subject import (
    Corruption,
    only_subject_span,
    subject_deviation,
    with_noisy_subject,
    with_other_subjects,
)
from kn_attrib.interventions.restoration import restore
from kn_attrib.interventions.states import STATES, State, StatePoints
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel

METHODS = ("integrated_gradients", "gradient_x_activation", "activation_norm", "random")


def trace(
    model: NeuronModel,
    facts: Facts,
    methods: Methods = METHODS,
    *,
    kinds: Sequence[State] = STATES,
    severed: Sequence[Severed] = (),
    window: int | None = None,
    corruption: Corruption = "gaussian",
    noise: float = NOISE,
    samples: int = 10,
    k: int = 10,
    limit: int | None = 34,
    max_prompts: int | None = 1,
    known_share: float = 0.5,
    contrast_facts: int = 8,
    seed: int = 0,
    fact: str = "",
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Trace:
    """Causal tracing: corrupt the subject, put one state back, and see how much of the answer returns.

    ``p`` is the probability of the answer's first token. The total effect of a prompt is ``p(clean) − p(corrupted)``;
    the indirect effect of a cell (a state, a token ``t``, a layer ``l``) is ``p(corrupted, state of (t, l) as in the
    clean run) − p(corrupted)``, both means over the samples, which all cells of a prompt share. Average indirect
    effects are means over facts, within relations first, by the role of the token; a role's effect in a prompt is the
    mean over its tokens.

    Parameters
    ----------
    model : from `load_model`; causal or masked, with one module for each layer.
    facts, methods, folder, overwrite, progress : as in `Experiment`. The methods' layers are compared with tracing's.
    kinds : states to restore: ``"hidden"`` (behind a layer), ``"ffn"`` and ``"attention"`` (what their output linears
        write, in a window of layers).
    severed : also hidden states with what these write later, at the same token, held at its corrupted values.
    window : layers that are restored together, ``l − window // 2`` on, cut off at the model's ends; default: 10 in 48
        of the model's layers, as in the paper.
    corruption : ``"gaussian"`` noise on the embeddings of the subject's tokens, ``"uniform"`` noise, or ``"replace"``
        the subject by others of its relation, of as many tokens and with another answer.
    noise : standard deviation of the noise (uniform: its largest value), in standard deviations of the embeddings of
        all subjects that are traced.
    samples : corrupted runs of a prompt, each with a draw of its own (``"replace"``: at most so many other subjects).
    k : neurons of each layer that are suppressed, the highest of each method, for comparison.
    limit, fact, known_share : as in `ExperimentSettings`; unless ``known_share`` is 0, prompts answered wrongly are
        left out.
    max_prompts : most prompts per fact.
    contrast_facts : other facts of the relation, for methods that compare facts with one another.
    seed : of noise, other subjects, methods and bootstrap.

    Raises
    ------
    ConfigError : a setting is out of range.
    ModelError : the model has no states that can be restored.
    MethodError : a method is unknown or faulty.
    FactError : no fact has a prompt in which its subject stands once (the reasons are counted).

    Reference
    ---------
    Meng, Bau, Andonian, Belinkov 2022, *Locating and editing factual associations in GPT*, arXiv 2202.05262.
    """
    settings = TracingSettings(
        limit=limit,
        fact=fact,
        max_prompts=max_prompts,
        known_share=known_share,
        seed=seed,
        kinds=tuple(kinds),
        severed=tuple(severed),
        window=window,
        corruption=corruption,
        noise=noise,
        samples=samples,
        k=k,
        contrast_facts=contrast_facts,
    )
    return Tracing(model, facts, methods, settings, folder, overwrite, progress).run()


class Traceable(NamedTuple):
    """A fact, the first queries of its texts that can be traced, and why the others cannot."""

    candidate: Candidate
    queries: tuple[Prompt, ...]
    left_out: tuple[tuple[Prompt, PromptError], ...]


class Tracing(Experiment[TracingSettings, Traceable, Trace]):
    """Which states bring the answer back when the subject is corrupted, and do they tell which neurons matter?"""

    name = "trace"
    columns = ("method", "kind", "role", "layer", "metric")

    def __init__(
        self,
        model: NeuronModel,
        facts: Facts,
        methods: Methods,
        settings: TracingSettings,
        folder: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> None:
        check_model(model)
        settings.check(model)
        needed = {*settings.kinds, *settings.severed}
        self.points = StatePoints(model, tuple(state for state in STATES if state in needed))
        self.deviation = 0.0
        self._untraced: list[Traceable] = []
        super().__init__(model, facts, methods, settings, folder, overwrite, progress)

    def units(self) -> list[Traceable]:
        """The facts with a text in which the subject stands once."""
        found = [self._traceable(candidate) for candidate in self.selection.targets]
        traced = [each for each in found if each.queries]
        self._untraced = [each for each in found if not each.queries]
        if not traced:
            why = "" if not found else f" The first reason: {found[0].left_out[0][1]}"
            causes = dict(Counter(error.cause for each in found for _, error in each.left_out))
            said = f" (of its texts: {causes})" if causes else ""
            raise self.selection.no_facts(f"{self.model.name} has no fact that can be traced{said}.{why}")
        self.deviation = subject_deviation(self.model, [query for each in traced for query in each.queries])
        return traced

    def _traceable(self, candidate: Candidate) -> Traceable:
        queries, left_out = [], []
        for text in candidate.prompts:
            first = text.queries[0]
            try:
                only_subject_span(self.model, first)
                self._other_subjects(first)
            except PromptError as error:
                left_out.append((first, error))
            else:
                queries.append(first)
        return Traceable(candidate, tuple(queries), tuple(left_out))

    def _other_subjects(self, query: Prompt) -> Tensor | None:
        """Where the subject is replaced: the embeddings of the text with others."""
        s = self.settings
        if s.corruption != "replace":
            return None
        related = [c.fact for c in self.selection.candidates if c.fact.relation == query.fact.relation]
        return with_other_subjects(self.model, query, related, s.samples, s.seed)

    def _corrupted(self, query: Prompt) -> Tensor:
        others, s = self._other_subjects(query), self.settings
        if others is not None:
            return others
        return with_noisy_subject(self.model, query, s.corruption, s.noise * self.deviation, s.samples, s.seed)

    def measure(self, unit: Traceable) -> Rows:
        """Trace each prompt; then ask every method for the layers of its neurons, and suppress them."""
        rows: Rows = {"rows": [], "cells": [], "prompts": [untraced(*each) for each in unit.left_out]}
        effects: dict[RoleCell, list[float]] = defaultdict(list)
        traced = []
        for number, query in enumerate(unit.queries):
            embeddings = self._corrupted(query)
            cells = self.settings.restorations(self.model.n_layers, len(query.input_ids))
            found = restore(self.points, query, embeddings, [each for _, _, each in cells])
            span = only_subject_span(self.model, query)
            right = found.rank == 1 or self.settings.known_share == 0
            rows["prompts"].append(prompt_row(number, query, span, found, TRACED if right else WRONG))
            if right:
                traced.append(query)
                words = [str(self.model.tokenizer.decode([token])) for token in query.input_ids]
                own = cell_rows(number, query, words, found, cells)
                rows["cells"] += own
                roles = roles_of(*span, query.position, len(words))
                for cell, value in role_means(own, roles).items():
                    effects[cell].append(value)
        rows["rows"] = [
            self._row(unit, TRACING, kind, role, layer, INDIRECT, sum(values) / len(values))
            for (kind, role, layer), values in effects.items()
        ]
        if traced:
            rows["rows"] += self._profiles(unit, traced)
        return rows

    def _row(
        self, unit: Traceable, method: str, kind: str, role: str, layer: int, metric: str, value: float
    ) -> dict[str, Any]:
        fact = unit.candidate.fact
        common = {"fact": fact.id, "relation": fact.relation, "method": method, "kind": kind, "role": role}
        return common | {"layer": layer, "metric": metric, "value": float(value)}

    def _profiles(self, unit: Traceable, queries: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Rows of every method's layers, and of the layers as they are."""
        related = sorted(
            (c for c in self.selection.pool if c.fact.subject != unit.candidate.fact.subject),
            key=lambda c: c.fact.relation != unit.candidate.fact.relation,
        )
        others = queries_of(related[: self.settings.contrast_facts])
        sets = {ALL_NEURONS: layers_of(self.model)}
        shares: dict[tuple[str, str], Tensor] = {}
        for method in self.scorers:
            scores = self.score(method, queries, others)
            shares[method, SCORES], shares[method, REFINED] = score_shares(scores), refined_shares(scores)
            sets[method] = top_of_each_layer(scores, self.settings.k)
        lost = suppression(self.model, queries, sets)
        shares |= {(method, SUPPRESSED): each for method, each in lost.items()}
        return [
            self._row(unit, method, "neurons", "answer", layer, metric, value)
            for (method, metric), values in shares.items()
            for layer, value in enumerate(values.tolist())
        ]

    def further(self, rows: Rows) -> dict[str, Any]:
        """How wide windows are, how large the noise is, and how many texts were traced or left out for what."""
        statuses = [row["status"] for row in rows["prompts"]]
        statuses += [error.cause for each in self._untraced for _, error in each.left_out]
        return {
            "window": self.settings.width(self.model.n_layers),
            "deviation": self.deviation,
            "prompts": dict(Counter(statuses)),
            "not_traced": [each.candidate.fact.id for each in self._untraced],
        }

    def publish(self, result: Trace, folder: Path) -> Path:
        """Write the figures and the page of a result; returns the page's path."""
        return result.report(folder)

    def tables(self, result: Trace) -> Iterator[TitledTable]:
        """Total effects, the highest average indirect effects, and the answer."""
        return trace_tables(result)

    def figures(self, result: Trace) -> dict[str, CaptionedFigure]:
        """Average indirect effects, layers of methods, correlations, and heat maps of some facts."""
        return trace_figures(result)

    def result(self, rows: Rows, manifest: dict[str, Any]) -> Trace:
        """Rows, cells, prompts and facts."""
        lost = [untraced(*each) for unit in self._untraced for each in unit.left_out]
        prompts: pd.DataFrame = pd.DataFrame(rows["prompts"] + lost, columns=list(PROMPTS))
        traced = set(prompts.fact[prompts.status == TRACED])
        reasons = {unit.candidate.fact.id: unit.left_out[0][1].cause for unit in self._untraced}
        facts = self.selection.to_frame()
        facts["status"] = [
            status if status != USED or fact in traced else reasons.get(fact, WRONG)
            for fact, status in zip(facts.fact, facts.status, strict=True)
        ]
        cells: pd.DataFrame = pd.DataFrame(rows["cells"], columns=list(CELLS))
        return Trace(self.rows_frame(rows), cells, prompts, facts[list(FACTS)], manifest)
