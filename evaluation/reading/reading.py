"""Reading: what a fact's neurons fire on, what they write, and by which layer the answer is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings, Facts, Methods, Option, Rows
from kn_attrib.evaluation.measure.known_facts import Candidate, queries_of
from kn_attrib.evaluation.reading.agreement import agreement_by_layer, calibration, layer_words
from kn_attrib.evaluation.reading.contexts import (
    Contexts,
    Corpus,
    Passage,
    batches_of,
    digest_of,
    encoded,
    kind_of,
    passages,
)
from kn_attrib.evaluation.reading.figures import reading_figures
from kn_attrib.evaluation.reading.keys import TopPrompts, check_shown, shown_prompts
from kn_attrib.evaluation.reading.lens import logit_lens
from kn_attrib.evaluation.reading.result import ReadingResult
from kn_attrib.evaluation.reading.tables import reading_tables
from kn_attrib.evaluation.reading.top_activations import NONE, TopActivations, highest_activations
from kn_attrib.evaluation.reading.values import ValueReader, words_frame
from kn_attrib.evaluation.records.journal import Entry
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.progress import progress_bar
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.facts.facts import SLOT
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet

METHODS = ("integrated_gradients", "gradient_x_activation", "activation", "random")
PART_TOKENS = 2**16
"""Tokens of the corpus after which what was found is kept on disk."""

ROW_BYTES = 2**30
"""Most memory of rows while methods score facts, unless the model has a budget of its own: more is no faster here."""


@dataclass(frozen=True)
class ReadingSettings(ExperimentSettings):
    """Settings of reading; see `read`."""

    corpus: Annotated[str, Option("File of texts, one a line; default: the facts' own texts, answers filled in.")] = ""
    max_tokens: Annotated[int | None, Option("Most tokens of the corpus; 0 for all.", least=0)] = None
    contexts: Annotated[Contexts, Option("auto, prefixes (causal models) or masks (masked models).")] = "auto"
    top: Annotated[int, Option("Contexts and words kept of each neuron.", least=1)] = 10
    budget: Annotated[int, Option("Neurons of each fact by each method.", least=1)] = 5
    neurons: Annotated[str, Option("Further neurons to show, such as L3:17,L5:2.")] = ""
    corpus_sha256: str = ""

    def __post_init__(self) -> None:
        # Of the texts, not of the path: a run may only go on with the same texts.
        if self.corpus and not self.corpus_sha256:
            object.__setattr__(self, "corpus_sha256", digest_of(self.corpus))

    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError or NeuronError on what does not go with the model."""
        kind_of(model, self.contexts)
        check_shown(model, self.neurons)
        for name in ("top", "budget"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if self.budget > model.n_layers * model.n_neurons:
            raise ConfigError(f"budget is {self.budget}; {model.name} has {model.n_layers * model.n_neurons} neurons.")


def read(
    model: NeuronModel,
    facts: Facts,
    methods: Methods = METHODS,
    *,
    corpus: str | Path = "",
    max_tokens: int | None = None,
    contexts: Contexts = "auto",
    top: int = 10,
    budget: int = 5,
    neurons: str = "",
    limit: int | None = 34,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    seed: int = 0,
    fact: str = "",
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ReadingResult:
    """Read neurons as key-value memories: the contexts that activate them most, and the words that they write.

    All neurons of the model are read once over a corpus (`top_prompts`) and through the unembedding (`read_values`);
    ``agreement`` is the share of a layer's neurons whose most likely word is what follows the context that activates
    them most, beside the same with value vectors shuffled within the layer. Then each method names a fact's neurons:

    - ``answer_in_words``: share of them whose ``top`` words hold the answer's token, for the sign of their activation;
    - ``answer_log_rank``: mean of log10 of its rank;
    - ``answer_follows``: share of their contexts that the answer's token follows;
    - ``subject_in_context``: share of their contexts in which the fact's subject stands.

    Parameters
    ----------
    model : from `load_model`; causal or masked.
    facts, methods, folder, overwrite, progress : as in `Experiment`.
    corpus : file of texts, one a line; if not given, the facts' own texts with their answers filled in.
    max_tokens : most tokens of the corpus.
    contexts : as in `top_prompts`.
    top : contexts and words kept of each neuron.
    budget : neurons of each fact by each method, those with the highest mean score.
    neurons : further neurons to show, such as ``"L3:17,L5:2"``; with them no fact need be known.
    limit, fact, max_prompts, known_share : as in `ExperimentSettings`.
    seed : of shuffled values and bootstrap.

    Returns
    -------
    ReadingResult

    Raises
    ------
    ConfigError : a setting is out of range, or the corpus is empty or cannot be read.
    PromptError : a text of the corpus is longer than the model reads.
    NeuronError : a neuron does not exist.
    MethodError : a method is unknown or faulty, or the model's residual stream cannot be followed.
    FactError : no fact is known, and no neuron was named.

    Reference
    ---------
    Geva et al. 2021, arXiv 2012.14913; Geva et al. 2022, arXiv 2203.14680.
    """
    settings = ReadingSettings(
        limit=limit,
        fact=fact,
        max_prompts=max_prompts,
        known_share=known_share,
        seed=seed,
        corpus=str(corpus),
        max_tokens=max_tokens,
        contexts=contexts,
        top=top,
        budget=budget,
        neurons=neurons,
    )
    return Reading(model, facts, methods, settings, folder, overwrite, progress).run()


class Reading(Experiment[ReadingSettings, Candidate, ReadingResult]):
    """What a fact's neurons fire on and what they write."""

    name = "read"
    columns = ("method", "metric")

    def units(self) -> list[Candidate]:
        """The facts that are known, behind the reading of all neurons."""
        found = list(self.selection.targets)
        if not found and not self.settings.neurons:
            raise self.selection.no_facts(f"{self.model.name} knows none of the facts; name neurons to read without")
        self._reader = ValueReader(self.model)
        self._keys = self._read_keys()
        self._layers = [self._read_layer(layer) for layer in range(self.model.n_layers)]
        return found

    @property
    def corpus(self) -> Corpus:
        """What is read: the file, or the facts' texts."""
        own = (text.replace(SLOT, f.answer) for f in self.facts for text in (*f.prompts, *f.held_out))
        return self.settings.corpus or tuple(dict.fromkeys(own))

    def _read_keys(self) -> TopPrompts:
        s, kind = self.settings, kind_of(self.model, self.settings.contexts)
        texts = encoded(self.model, self.corpus, s.max_tokens)
        total: TopActivations | None = None
        with progress_bar("tokens", s.max_tokens, self.progress) as update:
            for number, part in enumerate(_parts(passages(self.model, texts, kind))):

                def work(part: Sequence[Passage] = part) -> Entry:
                    found = highest_activations(self.model, batches_of(part), s.top, update)
                    return Entry(tensors={name: each.cpu() for name, each in found.tensors().items()})

                found = TopActivations(**self.journal.get(f"keys-{number}", work).tensors)
                if total is None:
                    total = found
                else:
                    total.merge(torch.arange(len(total.keys)), found.activations, found.numbers, found.keys)
        if total is None or bool((total.numbers == NONE).all()):
            raise ConfigError("the corpus holds no context; expected texts of at least two tokens.")
        return shown_prompts(self.model, self.corpus, total, kind)

    def _read_layer(self, layer: int) -> dict[str, Tensor]:
        following = self._keys.next_words()[layer]
        signs = torch.where(self._keys.activations[layer, :, 0] < 0, -1, 1)

        def work() -> Entry:
            s = self.settings
            return Entry(tensors=layer_words(self._reader, layer, signs, following, s.top, s.seed))

        return dict(self.journal.get(f"words-{layer}", work).tensors)

    def measure(self, unit: Candidate) -> Rows:
        """Every method's neurons of a fact: what they write and fire on; and the answer behind each layer."""
        with self.model.execution.within(ROW_BYTES):
            return self._measure(unit)

    def _measure(self, unit: Candidate) -> Rows:
        queries = queries_of([unit])
        others = queries_of([c for c in self.selection.pool if c is not unit and c.fact.relation == unit.fact.relation])
        activations = torch.zeros(len(queries), self.model.n_layers, self.model.n_neurons)
        for indices, batch in self.model.batches(queries):
            activations[indices] = self.model.record(batch).float().cpu()
        rows: Rows = {"rows": [], "neurons": [], "lens": self._lens(unit)}
        answer = queries[0].answer_id
        for method in self.scorers:
            mean = self.score(method, queries, others).values.double().mean(0)  # noqa: PD011  # a tensor
            best = mean.flatten().sort(descending=True, stable=True).indices[: self.settings.budget]
            found = self._neurons(unit, method, best, mean, activations.mean(0), answer)
            rows["neurons"] += found
            rows["rows"] += self._measures(unit, method, found, answer)
        return rows

    def _lens(self, unit: Candidate) -> list[dict[str, Any]]:
        found = logit_lens(self.model, queries_of([unit])).assign(rank=lambda frame: np.log(frame["rank"]))
        means = found.groupby(["fact", "relation", "layer"], as_index=False)[["logprob", "rank"]].mean()
        return list(means.assign(rank=np.exp(means["rank"])).to_dict("records"))

    def _neurons(
        self, unit: Candidate, method: str, best: Tensor, scores: Tensor, activations: Tensor, answer: int
    ) -> list[dict[str, Any]]:
        """Rows of a fact's neurons, with the rank of the answer among the words that each writes."""
        rows = []
        for place, flat in enumerate(best.tolist(), start=1):
            layer, neuron = divmod(flat, self.model.n_neurons)
            activation = float(activations[layer, neuron])
            sign = -1 if activation < 0 else 1
            states = self._reader.states(layer, torch.tensor([neuron]), torch.tensor([sign]))
            ranks = self._reader.words(states, 1, torch.tensor([[answer]], device=states.device)).ranks
            rows.append(
                {
                    "fact": unit.fact.id,
                    "relation": unit.fact.relation,
                    "method": method,
                    "place": place,
                    "layer": layer,
                    "neuron": neuron,
                    "score": float(scores[layer, neuron]),
                    "activation": activation,
                    "sign": sign,
                    "answer_rank": int(ranks[0, 0]),
                }
            )
        return rows

    def _measures(
        self, unit: Candidate, method: str, found: Sequence[dict[str, Any]], answer: int
    ) -> list[dict[str, Any]]:
        contexts = self._keys.to_frame(NeuronSet((row["layer"], row["neuron"]) for row in found))
        ranks = np.array([row["answer_rank"] for row in found])
        measured = {
            "answer_in_words": float((ranks <= self.settings.top).mean()),
            "answer_log_rank": float(np.log10(ranks).mean()),
        }
        if len(contexts):
            inside = contexts.context.str.contains(unit.fact.subject, case=False, regex=False)
            measured |= {
                "answer_follows": float((contexts.word_id == answer).mean()),
                "subject_in_context": float(inside.mean()),
            }
        common = {"fact": unit.fact.id, "relation": unit.fact.relation, "method": method}
        return [common | {"metric": metric, "value": value} for metric, value in measured.items()]

    def further(self, rows: Rows) -> dict[str, Any]:  # noqa: ARG002  # the frame hands them over
        """What was read, and the neurons that were asked for by name."""
        asked = check_shown(self.model, self.settings.neurons)
        return {
            "corpus": {"file": self.settings.corpus or None, "sha256": digest_of(self.corpus)},
            "contexts": len(self._keys.contexts),
            "asked": [list(neuron) for neuron in asked],
        }

    def result(self, rows: Rows, manifest: dict[str, Any]) -> ReadingResult:
        """Rows, and of the reading of all neurons what concerns the neurons in them."""
        neurons = pd.DataFrame(rows["neurons"], columns=NEURON_COLUMNS)
        pairs = zip(neurons.layer, neurons.neuron, strict=True)
        shown = NeuronSet((*pairs, *map(tuple, manifest["asked"])))
        return ReadingResult(
            rows=self.rows_frame(rows),
            neurons=neurons,
            keys=self._keys.to_frame(shown),
            words=self._words(shown),
            lens=pd.DataFrame(rows["lens"], columns=["fact", "relation", "layer", "logprob", "rank"]),
            agreement=agreement_by_layer(self._layers),
            calibration=calibration(self._layers),
            manifest=manifest,
        )

    def _words(self, shown: NeuronSet) -> pd.DataFrame:
        """What the shown neurons write, with either sign of their activation."""
        parts = []
        for layer in sorted(shown.layers):
            indices = torch.tensor([neuron.index for neuron in shown if neuron.layer == layer])
            for sign in (1, -1):
                states = self._reader.states(layer, indices, torch.full_like(indices, sign))
                words = self._reader.words(states, self.settings.top)
                parts.append(words_frame(self.model, layer, indices, words).assign(sign=sign))
        frame: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return frame

    def tables(self, result: ReadingResult) -> Iterator[TitledTable]:
        """Agreement by layer, what methods' neurons write, and each fact's neurons."""
        return reading_tables(result)

    def figures(self, result: ReadingResult) -> dict[str, CaptionedFigure]:
        """Agreement by layer, and the answer behind each layer."""
        return reading_figures(result)

    def publish(self, result: ReadingResult, folder: Path) -> Path:
        """Write the figures and the page of a result; returns the page's path."""
        return result.report(folder)


NEURON_COLUMNS = [
    "fact", "relation", "method", "place", "layer", "neuron", "score", "activation", "sign", "answer_rank"
]  # fmt: skip


def _parts(found: Iterator[Passage]) -> Iterator[list[Passage]]:
    """Passages in parts of about `PART_TOKENS` tokens."""
    part, held = list[Passage](), 0
    for passage in found:
        part.append(passage)
        held += len(passage.ids)
        if held >= PART_TOKENS:
            yield part
            part, held = [], 0
    if part:
        yield part
