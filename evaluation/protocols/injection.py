"""INJ: new information is written into a few random value vectors; does a method find them?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.experiment import scorers_of
from kn_attrib.evaluation.measure.known_facts import Candidate, Selection, select_facts
from kn_attrib.evaluation.protocols.finetune import Injection, inject
from kn_attrib.evaluation.protocols.rankings import recall, share_of, top_of_layers, top_of_model
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.provenance import jsonable, manifest_of, methods_of
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.loading import load_facts
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.value_vectors import write_values
from kn_attrib.models.cost import spending
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import numpy_generator
from kn_attrib.scoring.score import fit, score_prompts
from kn_attrib.scoring.scorer import Scorer

Information = Literal["counterfactual", "unknown"]
METHODS = ("hard_concrete", "slimming", "ablation", "integrated_gradients", "activation_norm", "activation", "random")
SHARES = (0.01, 0.02, 0.05)
SMALL_SHARES = (0.001, 0.002, 0.005)
"""Also asked for where less than 1 % of the neurons are injected into."""
WANTED: dict[Information, str] = {
    "counterfactual": "for counterfactual information (one it knows, whose relation has another answer)",
    "unknown": "for unknown information (one whose answer it does not know)",
}
COLUMNS = ("method", "ratio", "k", "scope", "truth", "metric")


@dataclass(frozen=True)
class InjectionSettings:
    """Settings of INJ; see `run_injection`."""

    ratios: tuple[float, ...] = (0.01,)
    shares: tuple[float, ...] = ()
    information: Information = "counterfactual"
    loss: float = 0.05
    steps: int = 200
    rate: float = 0.05
    limit: int | None = 34
    max_prompts: int | None = None
    known_share: float = 0.5
    contrast_facts: int = 8
    seed: int = 0

    def check(self) -> None:
        """Raise ConfigError on a setting that is out of range."""
        for share in (*self.ratios, *self.shares):
            share_of(1, share)
        if not self.ratios:
            raise ConfigError("ratios is empty; expected at least one share of the neurons, such as 0.01.")
        if self.information not in ("counterfactual", "unknown"):
            raise ConfigError(unknown("information", self.information, ("counterfactual", "unknown")))
        for name in ("loss", "steps", "rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a positive number.")

    def shares_of(self, ratio: float) -> tuple[float, ...]:
        """The k of recall@k at a ratio."""
        return self.shares or (SMALL_SHARES + SHARES if ratio < min(SHARES) else SHARES)


def run_injection(
    model: NeuronModel,
    facts: str | Path | Sequence[Fact],
    methods: Sequence[str | type[Scorer] | Scorer] = METHODS,
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
    facts : anything `load_facts` reads.
    methods : names, ``"name:preset"``, ``"name(param=value)"``, classes or scorers.
    ratios : shares of the model's neurons to inject into, at least one neuron each.
    shares : the k of recall@k; default 1, 2, 5 %, and below a ratio of 1 % also 0.1, 0.2, 0.5 %.
    information : ``"counterfactual"`` (a known fact's subject gets another answer of its relation) or ``"unknown"``
        (facts that the model does not know, as they are).
    loss, steps, rate : fine-tuning; see `inject`.
    limit : most facts, taken from the relations in turn.
    max_prompts : most prompts per fact, for injecting and for scoring alike.
    known_share : a fact is known if its answer is on top in at least this share of its prompts.
    contrast_facts : other facts of the relation, for methods that compare facts with one another.
    seed : of new answers, neurons and bootstrap.
    progress : show a progress bar.

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
        tuple(ratios), tuple(shares), information, loss, steps, rate, limit, max_prompts, known_share, contrast_facts,
        seed,
    )  # fmt: skip
    settings.check()
    run = _Run(model, load_facts(facts), scorers_of(methods), settings)
    return run.execute(progress)


@dataclass
class _Run:
    """One run of INJ in progress."""

    model: NeuronModel
    facts: FactSet
    scorers: dict[str, Scorer]
    settings: InjectionSettings
    rows: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    neurons: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, dict[str, float]] = field(default_factory=dict)

    def execute(self, progress: bool) -> ProtocolResult:
        started, s = time.perf_counter(), self.settings
        selection = select_facts(
            self.model, self.facts, limit=s.limit, max_prompts=s.max_prompts, known_share=s.known_share
        )
        chosen = self._chosen(selection)
        if not chosen:
            raise selection.no_facts(f"{self.model.name} has no fact {WANTED[s.information]}")
        plan = [(fact, ratio) for fact in chosen for ratio in s.ratios]
        for fact, ratio in tqdm(plan, desc="INJ", disable=None if progress else True, leave=False):
            self._fact(fact, ratio, selection)
        frame = selection.to_frame().drop(columns=["p_prompts", "p_held_out", "prompts"])
        facts = frame.merge(pd.DataFrame(self.records), on="fact", how="left")
        rows = pd.DataFrame(
            self.rows, columns=["fact", "relation", *COLUMNS, "n_predicted", "n_truth", "chance", "value"]
        )
        return ProtocolResult(rows, facts, pd.DataFrame(self.neurons), self._manifest(started))

    def _chosen(self, selection: Selection) -> list[Fact]:
        """New facts, each with the subject and the texts of an old one."""
        s = self.settings
        if s.information == "counterfactual":
            new = [self._counterfactual(c, selection.pool) for c in selection.targets]
            return [fact for fact in new if fact is not None]
        found = FactSet(tuple(c.fact for c in selection.candidates if c.status == "unknown"))
        return list(found.spread(s.limit) if s.limit and found else found)

    def _counterfactual(self, own: Candidate, others: Sequence[Candidate]) -> Fact | None:
        right = {own.fact.answer, *own.fact.alternatives}
        answers = sorted({c.fact.answer for c in others if c.fact.relation == own.fact.relation} - right)
        if not answers:
            return None
        drawn = answers[int(numpy_generator(self.settings.seed, "answer", own.fact.id).integers(len(answers)))]
        return replace(own.fact, answer=drawn, alternatives=())

    def _truth(self, fact: Fact, ratio: float) -> NeuronSet:
        """A random share of all neurons of the model."""
        total = self.model.n_layers * self.model.n_neurons
        order = numpy_generator(self.settings.seed, "inject", fact.id, ratio).permutation(total)
        return NeuronSet(Neuron(*divmod(int(i), self.model.n_neurons)) for i in order[: share_of(total, ratio)])

    def _fact(self, fact: Fact, ratio: float, selection: Selection) -> None:
        s = self.settings
        texts = self.model.encode(fact).texts[: s.max_prompts]
        prompts = [query for text in texts for query in text.queries]
        done = inject(self.model, prompts, self._truth(fact, ratio), s.loss, s.steps, s.rate)
        reached = done.loss < s.loss
        self.records.append(
            {"fact": fact.id, "ratio": ratio, "new_answer": fact.answer, "prompts": len(texts), "reached": reached,
             "loss_before": done.loss_before, "loss": done.loss, "steps": done.steps, "n_truth": len(done.neurons),
             "n_changed": len(done.changed),
             "n_speaking": len(done.speaking)}
        )  # fmt: skip
        changed, speaking = set(done.changed), set(done.speaking)
        self.neurons += [
            {
                "fact": fact.id,
                "ratio": ratio,
                "layer": n.layer,
                "neuron": n.index,
                "changed": n in changed,
                "speaking": n in speaking,
            }
            for n in done.neurons
        ]
        if not reached:
            return
        contrast = self._contrast(fact, selection)
        with write_values(self.model, done.neurons, done.vectors):
            for label, scorer in self.scorers.items():
                with spending(self.model.execution.cost, self.cost.get(label)) as self.cost[label]:
                    fitted = fit(scorer, self.model, prompts, contrast)
                    scores = score_prompts(self.model, prompts, fitted)
                self._recalls(fact, label, ratio, scores.values.double().mean(0), done)  # noqa: PD011  # a tensor

    def _contrast(self, fact: Fact, selection: Selection) -> list[Prompt]:
        """Queries of other known facts, those of the relation first."""
        pool = sorted(selection.pool, key=lambda c: c.fact.relation != fact.relation)
        others = [c for c in pool if c.fact.subject != fact.subject][: self.settings.contrast_facts]
        return [query for c in others for text in c.prompts for query in text.queries]

    def _recalls(self, fact: Fact, method: str, ratio: float, values: Tensor, done: Injection) -> None:
        truths = {"all": done.neurons, "changed": done.changed, "speaking": done.speaking}
        for k in self.settings.shares_of(ratio):
            for scope, predicted in (("layer", top_of_layers(values, k)), ("model", top_of_model(values, k))):
                for name, truth in truths.items():
                    self.rows.append(
                        {"fact": fact.id, "relation": fact.relation, "method": method, "ratio": ratio, "k": k,
                         "scope": scope, "truth": name, "n_predicted": len(predicted), "n_truth": len(truth),
                         "chance": len(predicted) / values.numel(), "metric": "recall",
                         "value": recall(predicted, truth)}
                    )  # fmt: skip

    def _manifest(self, started: float) -> dict[str, Any]:
        tried = {r: [e["reached"] for e in self.records if e["ratio"] == r] for r in self.settings.ratios}
        return manifest_of(
            self.model, self.facts, started, protocol="inj", columns=list(COLUMNS),
            settings=jsonable(asdict(self.settings)), reached={str(r): sum(each) for r, each in tried.items()},
            tried={str(r): len(each) for r, each in tried.items()}, methods=methods_of(self.scorers, self.cost),
        )  # fmt: skip
