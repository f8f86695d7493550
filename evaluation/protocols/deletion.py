"""DEL: a method's neurons are dropped in every layer; is the fact gone, and is nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.errors import ConfigError, listed
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings, Facts, Methods, Option, Rows
from kn_attrib.evaluation.measure.known_facts import Candidate, queries_of
from kn_attrib.evaluation.measure.perplexity import perplexity
from kn_attrib.evaluation.measure.plain_text import sentences_of
from kn_attrib.evaluation.protocols.figures import INTERVALS, change_by_method
from kn_attrib.evaluation.protocols.rankings import share_of, top_of_layers
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.protocols.tables import deletion_tables
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.facts.prompts import Text, by_text
from kn_attrib.interventions.activations import suppress
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import numpy_generator

METHODS = ("hard_concrete", "slimming", "ablation", "integrated_gradients", "activation_norm", "activation", "random")
GROUPS = ("self", "held_out", "negative")
SENTENCES = 50
ROWS_AT_ONCE = 256
FACTS_AT_ONCE = 16
"""Facts that are scored together."""


@dataclass(frozen=True)
class DeletionSettings(ExperimentSettings):
    """Settings of DEL; see `run_deletion`."""

    ratios: Annotated[tuple[float, ...], Option("Shares of each layer's neurons to drop, by commas.", "ratio")] = (
        0.001,
        0.005,
    )
    negatives: Annotated[int, Option("Most other memorised facts.", least=0)] = 100
    text: Annotated[tuple[str, ...] | None, Option("Plain text for perplexity, a sentence a line.")] = None
    sentences: int = SENTENCES
    first_layer: Annotated[int, Option("Layers below it lose nothing.", least=0)] = 0

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
        self._check_text(model)

    def _check_text(self, model: NeuronModel) -> None:
        """Raise where perplexity is of no text, or of another one than is asked for."""
        chosen = [name for name in ("text", "sentences") if getattr(self, name) != DEFAULTS[name]]
        for name in chosen:
            # None of either is what an encoder-decoder gets.
            if getattr(self, name) and model.kind == "encoder-decoder":
                raise ConfigError(f"{name} is for perplexity, which encoder-decoders have none of; leave it out.")
        if len(chosen) == 2:
            raise ConfigError(
                f"sentences is {self.sentences}, the number of the default text's, and text is given, all of which is "
                "used; give one of them."
            )


DEFAULTS = {field.name: field.default for field in fields(DeletionSettings)}


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
    for indices, batch in model.batches(queries, ROWS_AT_ONCE):
        answers = model.answers(batch)
        hits[indices] = (answers.rank == 1).cpu().double()
        logprobs[indices] = answers.logprob.cpu().double()
    accuracy, logprob = by_text(hits, queries, mean=True).mean(), by_text(logprobs, queries).mean()
    return Recalled(float(accuracy), float(logprob))


def run_deletion(
    model: NeuronModel,
    facts: Facts,
    methods: Methods = METHODS,
    *,
    ratios: Sequence[float] = (0.001, 0.005),
    negatives: int = 100,
    text: Sequence[str] | None = None,
    sentences: int = SENTENCES,
    first_layer: int = 0,
    limit: int | None = 34,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    seed: int = 0,
    fact: str = "",
    folder: str | Path | None = None,
    overwrite: bool = False,
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
    facts, folder, overwrite, progress : as in `Experiment`; facts that the model does not know are left out.
    methods : as in `Experiment`; keep ``"random"`` among them.
    ratios : shares of a layer's neurons to drop, at least one neuron of each layer.
    negatives : most other memorised facts.
    text : plain text, a sentence each; default: held-out sentences of other known facts with their answers, which is
        the language of the shipped models. Real models should be given text of their own. Encoder-decoders have none.
    sentences : most sentences of the default text; 0 for no perplexity. Text that is given is used as a whole.
    first_layer : layers below it lose nothing. The authors' code begins with layer 1; default: all.
    limit, fact, max_prompts, known_share : as in `ExperimentSettings`; a fact is memorised if it is known.
    seed : of negatives, sentences and bootstrap.

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
        limit=limit,
        fact=fact,
        max_prompts=max_prompts,
        known_share=known_share,
        seed=seed,
        ratios=listed("ratios", ratios),
        negatives=negatives,
        text=None if text is None else listed("text", text),
        sentences=sentences,
        first_layer=first_layer,
    )
    return DeletionProtocol(model, facts, methods, settings, folder, overwrite, progress).run()


Measured = dict[tuple[str, str], float]
"""(Group, metric) -> value."""


class Case(NamedTuple):
    """A method, and facts that it scores together."""

    method: str
    facts: tuple[Candidate, ...]


class DeletionProtocol(Experiment[DeletionSettings, Case, ProtocolResult]):
    """Each layer's top neurons dropped: is the fact forgotten, and nothing else?"""

    name = "del"
    columns = ("method", "ratio", "group", "metric")

    def units(self) -> list[Case]:
        """Every method with some facts at a time."""
        targets = self.selection.targets
        if not targets:
            raise self.selection.no_facts(f"{self.model.name} has no fact that it has memorised")
        self.sentences = self._sentences()
        self._before: dict[str, Measured] = {}
        starts = range(0, len(targets), FACTS_AT_ONCE)
        return [Case(m, targets[start : start + FACTS_AT_ONCE]) for m in self.scorers for start in starts]

    def measure(self, unit: Case) -> Rows:
        """Score the facts, fitted on all targets as `compare` does, and drop each one's neurons."""
        method, facts = unit
        others = [c for c in self.selection.targets if c not in facts]
        scores = self.score(method, queries_of(facts), queries_of(others))
        rows: Rows = {"rows": [], "neurons": []}
        for own in facts:
            mean = scores.for_fact(own.fact.id).values.double().mean(0)  # noqa: PD011  # a tensor
            self._delete(own, method, mean, rows)
        return rows

    def _delete(self, own: Candidate, method: str, mean: Tensor, rows: Rows) -> None:
        texts = self._texts(own)
        if own.fact.id not in self._before:
            self._before[own.fact.id] = self._measured(texts)
        before = self._before[own.fact.id]
        for ratio in self.settings.ratios:
            dropped = top_of_layers(mean, ratio, self.settings.first_layer)
            with suppress(self.model, dropped, positions="all"):
                after = self._measured(texts)
            common = {"fact": own.fact.id, "relation": own.fact.relation, "method": method, "ratio": ratio}
            rows["neurons"] += [common | {"layer": n.layer, "neuron": n.index} for n in dropped]
            for (group, metric), value in after.items():
                first = before[group, metric]
                numbers = {"before": first, "after": value, "change": value - first}
                if metric == "perplexity":
                    numbers["ratio"] = value / first
                rows["rows"] += [
                    common | {"group": group, "metric": f"{metric}_{name}", "n_neurons": len(dropped), "value": number}
                    for name, number in numbers.items()
                ]

    def _texts(self, own: Candidate) -> dict[str, tuple[Text, ...]]:
        """Texts of each group; a group may be empty."""
        pool = [c for c in self.selection.pool if c.fact.id != own.fact.id]
        order = numpy_generator(self.settings.seed, "negative", own.fact.id).permutation(len(pool))
        negative = tuple(pool[int(i)].prompts[0] for i in order[: self.settings.negatives])
        return {"self": own.prompts, "held_out": own.held_out, "negative": negative}

    def _sentences(self) -> list[str]:
        """What perplexity is of."""
        if self.settings.text is not None:
            return list(self.settings.text)
        if self.model.kind == "encoder-decoder":
            return []
        # Not the targets' own: forgetting these is what is asked for.
        others = [c for c in self.selection.candidates if c.status == "limit"] or self.selection.targets
        return [sentence for sentence, _ in sentences_of(others, self.settings.seed, self.settings.sentences)]

    def _measured(self, texts: dict[str, tuple[Text, ...]]) -> Measured:
        """All groups and metrics, as the model now is."""
        found: Measured = {}
        for group in GROUPS:
            if texts[group]:
                result = recalled(self.model, texts[group])
                found |= {(group, "accuracy"): result.accuracy, (group, "logprob"): result.logprob}
        if self.sentences:
            found["text", "perplexity"] = perplexity(self.model, self.sentences)
        return found

    @override
    def further(self, rows: Rows) -> dict[str, Any]:
        """The sentences that perplexity is of."""
        return {"protocol": self.name, "sentences": self.sentences}

    def tables(self, result: ProtocolResult) -> Iterator[TitledTable]:
        """What dropping each method's neurons changes, at each ratio."""
        return deletion_tables(result)

    def figures(self, result: ProtocolResult) -> dict[str, CaptionedFigure]:
        """Change of accuracy by method."""
        caption = "Change of the share of answers that are on top when a method's neurons are dropped at all tokens."
        return {"accuracy": CaptionedFigure(figure_of(change_by_method(result)), f"{caption} {INTERVALS}")}

    def result(self, rows: Rows, manifest: dict[str, Any]) -> ProtocolResult:
        """Rows, facts, and the neurons that were dropped."""
        frame = self.rows_frame(rows, "n_neurons")
        return ProtocolResult(frame, self.selection.to_frame(), pd.DataFrame(rows["neurons"]), manifest)
