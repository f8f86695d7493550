"""Which contexts of a corpus activate neurons most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, NeuronError
from kn_attrib.evaluation.reading.contexts import (
    PLACES,
    Contexts,
    Corpus,
    batches_of,
    digest_of,
    encoded,
    kind_of,
    passages,
)
from kn_attrib.evaluation.reading.top_activations import NONE, TopActivations, highest_activations
from kn_attrib.evaluation.reading.values import decoded
from kn_attrib.evaluation.records.progress import progress_bar
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.neurons import NeuronSet

SHOWN_TOKENS = 24
"""Most tokens of a context that are shown before its end."""
MASK = "…"
"""Stands for the masked token where a context is shown."""


def top_prompts(
    model: NeuronModel,
    corpus: Corpus,
    k: int = 10,
    *,
    contexts: Contexts = "auto",
    max_tokens: int | None = None,
    progress: bool = True,
) -> TopPrompts:
    """The contexts in a corpus that activate each neuron of a model most: its keys.

    A causal model reads each text once and every prefix of it is a context (the first token alone is not: activations
    there are far beyond all others, whatever the token). A masked model reads a text once for each of its tokens, which
    is masked. Activation is at the last token of the prefix or at the mask, and what is furthest from zero counts, with
    its sign. Equal contexts count once. Memory does not grow with the corpus, which is read as a stream.

    Parameters
    ----------
    model : from `load_model`.
    corpus : a file of texts, one a line, or a sequence of texts.
    k : contexts kept of each neuron.
    contexts : ``"auto"``, ``"prefixes"`` (causal models) or ``"masks"`` (masked models).
    max_tokens : stop after this many tokens.
    progress : show a progress bar.

    Raises
    ------
    ConfigError : the corpus is empty or cannot be read, ``k`` is not positive, or the contexts are not the model's.
    PromptError : a text is longer than the model reads; it is named.

    Reference
    ---------
    Geva et al. 2021, arXiv 2012.14913 (section 3: trigger examples).
    """
    check_model(model)
    if k < 1:
        raise ConfigError(f"k is {k}; expected at least one context.")
    kind = kind_of(model, contexts)
    digest_of(corpus)
    with progress_bar("tokens", max_tokens, progress) as update:
        found = batches_of(passages(model, encoded(model, corpus, max_tokens), kind))
        top = highest_activations(model, found, k, update)
    return shown_prompts(model, corpus, top, kind)


@dataclass(frozen=True)
class TopPrompts:
    """The contexts that activate each neuron most, the furthest from zero first.

    Attributes
    ----------
    activations : ``[layer, neuron, k]``, activations with their sign; 0 where a neuron has fewer contexts.
    numbers : ``[layer, neuron, k]``, row of `contexts`; −1 where it has fewer.
    contexts : one row per context: ``text`` (which of the corpus, from 0), ``place`` (token of the text, from 0),
        ``context`` (its end, as text), ``word, word_id`` (what comes next or is masked; ``""`` and −1 at a text's end).
    """

    activations: Tensor
    numbers: Tensor
    contexts: pd.DataFrame

    def __repr__(self) -> str:
        layers, neurons, k = self.activations.shape
        return f"TopPrompts({layers} layers × {neurons} neurons × {k}, {len(self.contexts)} contexts)"

    def to_frame(self, neurons: NeuronSet | None = None) -> pd.DataFrame:
        """One row per neuron and context: ``layer, neuron, rank`` ``activation``, and the columns of `contexts`.

        Raises
        ------
        NeuronError : a neuron does not exist.
        """
        n_layers, width, k = self.activations.shape
        if neurons is None:
            flat = torch.arange(n_layers * width)
        else:
            for neuron in neurons:
                if neuron.layer >= n_layers or neuron.index >= width:
                    raise NeuronError(f"{neuron} does not exist; {n_layers} layers × {width} neurons were read.")
            flat = torch.tensor([n.layer * width + n.index for n in neurons], dtype=torch.long)
        chosen, context = (each.flatten(0, 1)[flat] for each in (self.activations, self.numbers))
        frame = pd.DataFrame(
            {
                "layer": (flat // width).repeat_interleave(k).numpy(),
                "neuron": (flat % width).repeat_interleave(k).numpy(),
                "rank": torch.arange(1, k + 1).repeat(len(flat)).numpy(),
                "activation": chosen.flatten().double().numpy(),
                "number": context.flatten().numpy(),
            }
        )
        found = frame[frame.number != NONE].join(self.contexts, on="number").drop(columns="number")
        joined: pd.DataFrame = found.reset_index(drop=True)
        return joined

    def next_words(self) -> Tensor:
        """Id of what follows each neuron's first context: ``[layer, neuron]``; −1 where there is none."""
        words = torch.tensor(self.contexts.word_id.to_numpy(dtype=int), dtype=torch.long)
        first = self.numbers[..., 0]
        return torch.where(first == NONE, NONE, words[first.clamp_min(0)]) if len(words) else first


def shown_prompts(model: NeuronModel, corpus: Corpus, top: TopActivations, kind: Contexts) -> TopPrompts:
    """The contexts with their words, for which the corpus is read once more (by the tokenizer alone)."""
    shape = (model.n_layers, model.n_neurons, -1)
    kept, numbers = top.numbers.cpu().unique(return_inverse=True)
    has_none = bool(len(kept)) and int(kept[0]) == NONE
    if has_none:
        kept, numbers = kept[1:], numbers - 1
    frame = pd.DataFrame(_contexts(model, corpus, kept.tolist(), kind), columns=CONTEXT_COLUMNS)
    return TopPrompts(top.activations.cpu().view(shape), numbers.view(shape), frame)


CONTEXT_COLUMNS = ["text", "place", "context", "word", "word_id"]


def _contexts(
    model: NeuronModel, corpus: Corpus, wanted: Iterable[int], kind: Contexts
) -> Iterator[tuple[int, int, str, str, int]]:
    """Rows of `TopPrompts.contexts` for ascending numbers of contexts."""
    texts, number, ids = encoded(model, corpus), -1, list[int]()
    names: dict[int, str] = {}
    decode = partial(decoded, model, skip_special_tokens=True)
    for each in wanted:
        text, place = divmod(each, PLACES)
        while number < text:
            number, ids = next(texts)
        begin = max(0, place + 1 - SHOWN_TOKENS)
        if kind == "prefixes":
            word = ids[place + 1] if place + 1 < len(ids) else NONE
            shown = decode(ids[begin : place + 1])
        else:
            word = ids[place]
            after = decode(ids[place + 1 : place + SHOWN_TOKENS])
            shown = f"{decode(ids[begin:place])} {MASK} {after}".strip()
        if word not in names:
            names[word] = "" if word == NONE else decoded(model, [word])
        yield text, place, ("…" if begin else "") + shown, names[word], word


def check_shown(model: NeuronModel, text: str) -> NeuronSet:
    """Neurons from text such as ``"L3:17,L5:2"``.

    Raises
    ------
    ConfigError : it cannot be read.
    NeuronError : a neuron does not exist.
    """
    pairs = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        layer, colon, index = part.removeprefix("L").partition(":")
        if not (colon and layer.isdecimal() and index.isdecimal()):
            raise ConfigError(
                f"neurons: {part!r:.40} is no neuron; expected L and its layer, ':' and its index: L3:17."
            )
        pairs.append((int(layer), int(index)))
    return check_neurons(model, NeuronSet(pairs))
