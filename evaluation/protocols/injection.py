"""INJ: new information is written into a few random value vectors; does a method find them?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from torch import Tensor
from typing_extensions import override

from kn_attrib.errors import ConfigError, listed, unknown
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings, Facts, Methods, Option, Rows
from kn_attrib.evaluation.measure.known_facts import Candidate, queries_of
from kn_attrib.evaluation.protocols.figures import INTERVALS, recall_by_method
from kn_attrib.evaluation.protocols.finetune import Injection, inject
from kn_attrib.evaluation.protocols.rankings import recall, share_of, top_of_layers, top_of_model
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.protocols.tables import injection_tables
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.value_vectors import write_values
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import numpy_generator

Information = Literal["counterfactual", "unknown"]
TRIED = {"reached": "boolean", **dict.fromkeys(("prompts", "steps", "n_truth", "n_changed", "n_speaking"), "Int64")}
"""Types of the columns that only facts that were tried have values in."""
METHODS = ("hard_concrete", "slimming", "ablation", "integrated_gradients", "activation_norm", "activation", "random")
SHARES = (0.01, 0.02, 0.05)
SMALL_SHARES = (0.001, 0.002, 0.005)
"""Also asked for where less than 1 % of the neurons are injected into."""
WANTED: dict[Information, str] = {
    "counterfactual": "for counterfactual information (one it knows, whose relation has another answer)",
    "unknown": "for unknown information (one whose answer it does not know)",
}


@dataclass(frozen=True)
class InjectionSettings(ExperimentSettings):
    """Settings of INJ; see `run_injection`."""

    ratios: Annotated[tuple[float, ...], Option("Shares of all neurons to inject into, by commas.", "ratio")] = (0.01,)
    shares: tuple[float, ...] = ()
    information: Annotated[
        Information, Option("counterfactual (known subjects get another answer) or unknown (facts as they are).")
    ] = "counterfactual"
    loss: Annotated[float, Option("Fine-tune until the mean −log p is below this.")] = 0.05
    steps: Annotated[int, Option("Most steps of fine-tuning.")] = 200
    rate: Annotated[float, Option("Its learning rate.")] = 0.05
    contrast_facts: int = 8

    @override
    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError on a setting that is out of range."""
        for share in (*self.ratios, *self.shares):
            share_of(1, share)
        if not self.ratios:
            raise ConfigError("ratios is empty; expected at least one share of the neurons, such as 0.01.")
        if self.information not in WANTED:
            raise ConfigError(unknown("information", self.information, WANTED))
        for name in ("loss", "steps", "rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a positive number.")

    def shares_of(self, ratio: float) -> tuple[float, ...]:
        """The k of recall@k at a ratio."""
        return self.shares or (SMALL_SHARES + SHARES if ratio < min(SHARES) else SHARES)


def run_injection(
    model: NeuronModel,
    facts: Facts,
    methods: Methods = METHODS,
    *,
    ratios: Sequence[float] = (0.01,),
    shares: Sequence[float] = (),
    information: Information = "counterfactual",
    loss: float = 0.05,
    steps: int = 200,
    rate: float = 0.05,
    limit: int | None = 34,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    contrast_facts: int = 8,
    seed: int = 0,
    fact: str = "",
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ProtocolResult:
    """INJ: inject each fact into a random share of all value vectors, then ask every method where it is.

    ``recall@k = Σ_l |top k of layer l ∩ truth| / |truth|``: the neurons that were injected into and that are among the
    highest k % of their layer (``scope="layer"``), or of the model (``scope="model"``). A fact counts if its loss fell
    below ``loss``; the others are in ``facts`` with ``reached`` false. What a random ranking finds is ``n_predicted``
    over the number of neurons, which is more than k % where a layer has few neurons.

    Parameters
    ----------
    model : from `load_model`; its weights are changed while a fact is injected, and put back bit for bit.
    facts, methods, folder, overwrite, progress : as in `Experiment`.
    ratios : shares of the model's neurons to inject into, at least one neuron each.
    shares : the k of recall@k; default 1, 2, 5 %, and below a ratio of 1 % also 0.1, 0.2, 0.5 %.
    information : ``"counterfactual"`` (a known fact's subject gets another answer of its relation) or ``"unknown"``
        (facts that the model does not know, as they are).
    loss, steps, rate : fine-tuning; see `inject`.
    limit, fact, known_share : as in `ExperimentSettings`.
    max_prompts : most prompts per fact, for injecting and for scoring alike.
    contrast_facts : other facts of the relation, for methods that compare facts with one another.
    seed : of new answers, neurons and bootstrap.

    Returns
    -------
    ProtocolResult with rows ``(fact, relation, method, ratio, k, scope, truth, metric, value)``; ``truth`` is ``"all"``
    neurons that could be changed (the paper's), the ``"changed"`` ones, or the ``"speaking"`` ones (see
    `kn_attrib.evaluation.protocols.finetune.Injection`).

    Raises
    ------
    ConfigError : a setting is out of range.
    MethodError : a method is unknown or faulty.
    FactError : no fact can be injected (the reasons are counted).

    Reference
    ---------
    Chang, Thomason, Jia 2024, arXiv 2311.09060 (INJ).
    """
    settings = InjectionSettings(
        limit=limit,
        fact=fact,
        max_prompts=max_prompts,
        known_share=known_share,
        seed=seed,
        ratios=listed("ratios", ratios),
        shares=listed("shares", shares),
        information=information,
        loss=loss,
        steps=steps,
        rate=rate,
        contrast_facts=contrast_facts,
    )
    return InjectionProtocol(model, facts, methods, settings, folder, overwrite, progress).run()


class Case(NamedTuple):
    """A new fact, and the share of all neurons that it is injected into."""

    fact: Fact
    ratio: float


class InjectionProtocol(Experiment[InjectionSettings, Case, ProtocolResult]):
    """Facts injected into random value vectors: which methods find them?"""

    name = "inj"
    columns = ("method", "ratio", "k", "scope", "truth", "metric")

    def units(self) -> list[Case]:
        """Every new fact at every ratio."""
        facts = self._new_facts()
        if not facts:
            raise self.selection.no_facts(f"{self.model.name} has no fact {WANTED[self.settings.information]}")
        return [Case(fact, ratio) for fact in facts for ratio in self.settings.ratios]

    def _new_facts(self) -> list[Fact]:
        """New facts, each with the subject and the texts of an old one."""
        s = self.settings
        if s.information == "counterfactual":
            new = [self._counterfactual(c) for c in self.selection.targets]
            return [fact for fact in new if fact is not None]
        found = FactSet(tuple(c.fact for c in self.selection.asked if c.status == "unknown"))
        return list(found.spread(s.limit) if s.limit and found else found)

    def _counterfactual(self, own: Candidate) -> Fact | None:
        right = {own.fact.answer, *own.fact.alternatives}
        related = [c.fact.answer for c in self.selection.pool if c.fact.relation == own.fact.relation]
        answers = sorted(set(related) - right)
        if not answers:
            return None
        drawn = numpy_generator(self.settings.seed, "answer", own.fact.id).integers(len(answers))
        return replace(own.fact, answer=answers[int(drawn)], alternatives=())

    def measure(self, unit: Case) -> Rows:
        """Inject, and where that has worked ask every method for the neurons."""
        fact, s = unit.fact, self.settings
        texts = self.model.encode(fact).texts[: s.max_prompts]
        prompts = [query for text in texts for query in text.queries]
        done = inject(self.model, prompts, self._truth(unit), s.loss, s.steps, s.rate)
        rows: Rows = {"rows": [], "facts": [self._record(unit, len(texts), done)], "neurons": _neurons(unit, done)}
        if done.loss < s.loss:
            others = self._contrast(fact)
            with write_values(self.model, done.neurons, done.vectors):
                for method in self.scorers:
                    values = self.score(method, prompts, others).values.double().mean(0)  # noqa: PD011  # a tensor
                    rows["rows"] += self._recalls(unit, method, values, done)
        return rows

    def _truth(self, unit: Case) -> NeuronSet:
        """A random share of all neurons of the model."""
        total = self.model.n_layers * self.model.n_neurons
        order = numpy_generator(self.settings.seed, "inject", unit.fact.id, unit.ratio).permutation(total)
        chosen = order[: share_of(total, unit.ratio)]
        return NeuronSet(Neuron(*divmod(int(i), self.model.n_neurons)) for i in chosen)

    def _record(self, unit: Case, n_prompts: int, done: Injection) -> dict[str, Any]:
        return {
            "fact": unit.fact.id,
            "ratio": unit.ratio,
            "new_answer": unit.fact.answer,
            "prompts": n_prompts,
            "reached": done.loss < self.settings.loss,
            "loss_before": done.loss_before,
            "loss": done.loss,
            "steps": done.steps,
            "n_truth": len(done.neurons),
            "n_changed": len(done.changed),
            "n_speaking": len(done.speaking),
        }

    def _contrast(self, fact: Fact) -> list[Prompt]:
        """Queries of other known facts, those of the relation first."""
        pool = sorted(self.selection.pool, key=lambda c: c.fact.relation != fact.relation)
        others = [c for c in pool if c.fact.subject != fact.subject][: self.settings.contrast_facts]
        return queries_of(others)

    def _recalls(self, unit: Case, method: str, values: Tensor, done: Injection) -> list[dict[str, Any]]:
        truths = {"all": done.neurons, "changed": done.changed, "speaking": done.speaking}
        rows = []
        for k in self.settings.shares_of(unit.ratio):
            for scope, predicted in (("layer", top_of_layers(values, k)), ("model", top_of_model(values, k))):
                common = {"fact": unit.fact.id, "relation": unit.fact.relation, "method": method, "ratio": unit.ratio}
                common |= {"k": k, "scope": scope, "n_predicted": len(predicted), "metric": "recall"}
                common["chance"] = len(predicted) / values.numel()
                rows += [
                    common | {"truth": name, "n_truth": len(truth), "value": recall(predicted, truth)}
                    for name, truth in truths.items()
                ]
        return rows

    def further(self, rows: Rows) -> dict[str, Any]:
        """Facts tried and injected, by ratio."""
        tried = {r: [e["reached"] for e in rows["facts"] if e["ratio"] == r] for r in self.settings.ratios}
        return {
            "protocol": self.name,
            "reached": {str(ratio): sum(each) for ratio, each in tried.items()},
            "tried": {str(ratio): len(each) for ratio, each in tried.items()},
        }

    def tables(self, result: ProtocolResult) -> Iterator[TitledTable]:
        """Recall at each ratio."""
        return injection_tables(result)

    def figures(self, result: ProtocolResult) -> dict[str, CaptionedFigure]:
        """Recall by method; none where nothing was injected."""
        if result.rows.empty:
            return {}
        what = "Share of the neurons injected into that a method ranks among each layer's top k %: mean over facts."
        caption = f"{what} Broken lines: what a random ranking finds on average. {INTERVALS}"
        return {"recall": CaptionedFigure(figure_of(recall_by_method(result)), caption)}

    def result(self, rows: Rows, manifest: dict[str, Any]) -> ProtocolResult:
        """Rows, facts with what was injected, and neurons."""
        asked = self.selection.to_frame().drop(columns=["p_prompts", "p_held_out", "prompts"])
        # Types that have missing values: what was not tried has nothing there.
        tried = pd.DataFrame(rows["facts"]).astype(TRIED)
        facts = asked.merge(tried, on="fact", how="left")
        frame = self.rows_frame(rows, "n_predicted", "n_truth", "chance")
        return ProtocolResult(frame, facts, pd.DataFrame(rows["neurons"]), manifest)


def _neurons(unit: Case, done: Injection) -> list[dict[str, Any]]:
    changed, speaking = set(done.changed), set(done.speaking)
    return [
        {
            "fact": unit.fact.id,
            "ratio": unit.ratio,
            "layer": neuron.layer,
            "neuron": neuron.index,
            "changed": neuron in changed,
            "speaking": neuron in speaking,
        }
        for neuron in done.neurons
    ]
