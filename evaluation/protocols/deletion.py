"""DEL: a method's neurons are dropped in every layer; is the fact gone, and is nothing else?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.experiment import scorers_of
from kn_attrib.evaluation.measure.known_facts import Candidate, Selection, select_facts
from kn_attrib.evaluation.measure.perplexity import perplexity
from kn_attrib.evaluation.measure.plain_text import sentences_of
from kn_attrib.evaluation.protocols.rankings import share_of, top_of_layers
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.provenance import jsonable, manifest_of, methods_of
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.loading import load_facts
from kn_attrib.facts.prompts import Text, by_text
from kn_attrib.interventions.activations import suppress
from kn_attrib.models.cost import spending
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import numpy_generator
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.score import fit, score_prompts
from kn_attrib.scoring.scorer import Scorer

METHODS = ("hard_concrete", "slimming", "ablation", "integrated_gradients", "activation_norm", "activation", "random")
COLUMNS = ("method", "ratio", "group", "metric")
GROUPS = ("self", "held_out", "negative")
ROWS = 256
FACTS_AT_ONCE = 16
"""Facts that are scored together."""


@dataclass(frozen=True)
class DeletionSettings:
    """Settings of DEL; see `run_deletion`."""

    ratios: tuple[float, ...] = (0.001, 0.005)
    negatives: int = 100
    sentences: int = 50
    first_layer: int = 0
    limit: int | None = 34
    max_prompts: int | None = None
    known_share: float = 0.5
    seed: int = 0

    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError on a setting that is out of range for the model."""
        for ratio in self.ratios:
            share_of(1, ratio)
        if not self.ratios:
            raise ConfigError("ratios is empty; expected at least one share of a layer's neurons, such as 0.005.")
        if not 0 <= self.first_layer < model.n_layers:
            raise ConfigError(f"first_layer is {self.first_layer}; expected 0 to {model.n_layers - 1}.")
        for name in ("negatives", "sentences"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 0.")


@dataclass(frozen=True)
class Recalled:
    """How well some texts are remembered.

    Attributes
    ----------
    accuracy : share of the answers' tokens that are the most likely, the mean over texts.
    logprob : mean log-probability of the answers, in nats.
    """

    accuracy: float
    logprob: float


def recalled(model: NeuronModel, texts: Sequence[Text]) -> Recalled:
    """Ask for the answers of texts, token by token with the gold ones before, under whatever interventions are active.

    Parameters
    ----------
    texts : at least one.
    """
    queries = [query for text in texts for query in text.queries]
    hits, logprobs = (torch.zeros(len(queries), dtype=torch.float64) for _ in range(2))
    for indices, batch in model.batches(queries, ROWS):
        answers = model.answers(batch)
        hits[indices] = (answers.rank == 1).cpu().double()
        logprobs[indices] = answers.logprob.cpu().double()
    accuracy, logprob = by_text(hits, queries, mean=True).mean(), by_text(logprobs, queries).mean()
    return Recalled(float(accuracy), float(logprob))


def run_deletion(
    model: NeuronModel,
    facts: str | Path | Sequence[Fact],
    methods: Sequence[str | type[Scorer] | Scorer] = METHODS,
    *,
    ratios: Sequence[float] = (0.001, 0.005),
    negatives: int = 100,
    text: Sequence[str] | None = None,
    sentences: int = 50,
    first_layer: int = 0,
    limit: int | None = 34,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> ProtocolResult:
    """DEL: drop the top share of *each layer's* neurons, at every token, and see what is forgotten.

    For each memorised fact, before and after: ``accuracy`` and ``logprob`` of the fact's own prompts (group
    ``"self"``), of its held-out paraphrases (``"held_out"``) and of other memorised facts (``"negative"``, one text
    each), and ``perplexity`` of plain text (``"text"``). Metrics are ``…_before``, ``…_after`` and ``…_change``; of
    perplexity also ``perplexity_ratio``.

    Parameters
    ----------
    model : from `load_model`; its weights are not touched.
    facts : anything `load_facts` reads; those that the model does not know are left out.
    methods : names, ``"name:preset"``, ``"name(param=value)"``, classes or scorers; keep ``"random"`` among them.
    ratios : shares of a layer's neurons to drop, at least one neuron of each layer.
    negatives : most other memorised facts.
    text : plain text, a sentence each; default: held-out sentences of other known facts with their answers, which is
        the language of the shipped models. Real models should be given text of their own. Encoder-decoders have none.
    sentences : most sentences of the default text; 0 for no perplexity.
    first_layer : layers below it lose nothing. The authors' code begins with layer 1; default: all.
    limit : most facts, taken from the relations in turn.
    max_prompts : most attribution prompts per fact.
    known_share : a fact is memorised if its answer is on top in at least this share of its prompts.
    seed : of negatives, sentences and bootstrap.
    progress : show a progress bar.

    Returns
    -------
    ProtocolResult with rows ``(fact, relation, method, ratio, group, metric, value)``.

    Raises
    ------
    ConfigError : a setting is out of range.
    MethodError : a method is unknown or faulty.
    FactError : no fact is memorised (the reasons are counted).

    Reference
    ---------
    Chang, Thomason, Jia 2024, arXiv 2311.09060 (DEL).
    """
    settings = DeletionSettings(
        tuple(ratios), negatives, sentences, first_layer, limit, max_prompts, known_share, seed
    )  # fmt: skip
    settings.check(model)
    run = _Run(model, load_facts(facts), scorers_of(methods), settings, text)
    return run.execute(progress)


@dataclass
class _Run:
    """One run of DEL in progress."""

    model: NeuronModel
    facts: FactSet
    scorers: dict[str, Scorer]
    settings: DeletionSettings
    text: Sequence[str] | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    neurons: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, dict[str, float]] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)

    def execute(self, progress: bool) -> ProtocolResult:
        started, s = time.perf_counter(), self.settings
        selection = select_facts(
            self.model, self.facts, limit=s.limit, max_prompts=s.max_prompts, known_share=s.known_share
        )
        if not selection.targets:
            raise selection.no_facts(f"{self.model.name} has no fact that it has memorised")
        self.sentences = self._sentences(selection)
        texts = {c.fact.id: self._texts(c, selection) for c in selection.targets}
        before = {fact: self._measured(groups) for fact, groups in texts.items()}
        total = len(self.scorers) * len(selection.targets)
        with tqdm(desc="DEL", total=total, disable=None if progress else True, leave=False) as bar:
            for label, scorer in self.scorers.items():
                for candidate, scores in self._scored(label, scorer, selection):
                    self._delete(candidate, label, scores, texts[candidate.fact.id], before[candidate.fact.id])
                    bar.update()
        rows = pd.DataFrame(self.rows, columns=["fact", "relation", *COLUMNS, "n_neurons", "value"])
        return ProtocolResult(rows, selection.to_frame(), pd.DataFrame(self.neurons), self._manifest(started))

    def _scored(self, label: str, scorer: Scorer, selection: Selection) -> Iterator[tuple[Candidate, NeuronScores]]:
        """Each target with its scores; fitted on all targets at once, as `compare` does."""
        for start in range(0, len(selection.targets), FACTS_AT_ONCE):
            some = selection.targets[start : start + FACTS_AT_ONCE]
            queries = [query for c in some for text in c.prompts for query in text.queries]
            others = [query for c in selection.targets if c not in some for text in c.prompts for query in text.queries]
            with spending(self.model.execution.cost, self.cost.get(label)) as self.cost[label]:
                scores = score_prompts(self.model, queries, fit(scorer, self.model, queries, others))
            for c in some:
                yield c, scores.for_fact(c.fact.id)

    def _texts(self, own: Candidate, selection: Selection) -> dict[str, tuple[Text, ...]]:
        """Texts of each group; a group may be empty."""
        pool = [c for c in selection.pool if c.fact.id != own.fact.id]
        order = numpy_generator(self.settings.seed, "negative", own.fact.id).permutation(len(pool))
        negative = tuple(pool[int(i)].prompts[0] for i in order[: self.settings.negatives])
        return {"self": own.prompts, "held_out": own.held_out, "negative": negative}

    def _sentences(self, selection: Selection) -> list[str]:
        """What perplexity is of."""
        if self.text is not None:
            return list(self.text)
        # Not the targets' own: forgetting these is what is asked for.
        others = [c for c in selection.candidates if c.status == "limit"] or selection.targets
        if self.model.kind == "encoder-decoder":
            return []
        return [sentence for sentence, _ in sentences_of(others, self.settings.seed, self.settings.sentences)]

    def _measured(self, texts: dict[str, tuple[Text, ...]]) -> dict[tuple[str, str], float]:
        """(group, metric) -> value, as the model now is."""
        found: dict[tuple[str, str], float] = {}
        for group in GROUPS:
            if texts[group]:
                result = recalled(self.model, texts[group])
                found |= {(group, "accuracy"): result.accuracy, (group, "logprob"): result.logprob}
        if self.sentences:
            found["text", "perplexity"] = perplexity(self.model, self.sentences)
        return found

    def _delete(
        self, own: Candidate, method: str, scores: NeuronScores, texts: dict[str, tuple[Text, ...]],
        before: dict[tuple[str, str], float],
    ) -> None:  # fmt: skip
        mean = scores.values.double().mean(0)  # noqa: PD011  # a tensor
        for ratio in self.settings.ratios:
            dropped = top_of_layers(mean, ratio, self.settings.first_layer)
            with suppress(self.model, dropped, positions="all"):
                after = self._measured(texts)
            common = {"fact": own.fact.id, "relation": own.fact.relation, "method": method, "ratio": ratio}
            self.neurons += [common | {"layer": n.layer, "neuron": n.index} for n in dropped]
            for (group, metric), value in after.items():
                first = before[group, metric]
                numbers = {"before": first, "after": value, "change": value - first}
                if metric == "perplexity":
                    numbers["ratio"] = value / first
                self.rows += [
                    common | {"group": group, "metric": f"{metric}_{name}", "n_neurons": len(dropped), "value": number}
                    for name, number in numbers.items()
                ]

    def _manifest(self, started: float) -> dict[str, Any]:
        return manifest_of(
            self.model, self.facts, started, protocol="del", columns=list(COLUMNS),
            settings=jsonable(asdict(self.settings)), sentences=self.sentences,
            methods=methods_of(self.scorers, self.cost),
        )  # fmt: skip
