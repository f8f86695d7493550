"""What neurons write: their value vectors through final norm and unembedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from kn_attrib.errors import ConfigError
from kn_attrib.facts.facts import SLOT, Fact
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel, all_neurons, check_neurons
from kn_attrib.models.passes import dummy_inputs
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.neurons import NeuronSet
from kn_attrib.techniques.residual_stream import ResidualStream, check_exit, exit_early, follow

LOGIT_TENSORS = 4
"""Tensors of vocabulary width that a row holds at its peak here."""
MOST_ROWS = 128
"""Rows that go through the head at a time: more are no faster, and hold more logits."""


@dataclass(frozen=True)
class Words:
    """The words that some vectors write.

    Attributes
    ----------
    ids : ``[vector, word]``, the most likely words, the most likely first.
    logits, probabilities : ``[vector, word]``, theirs.
    ranks : ``[vector, asked]``, ranks of the words asked for; 1 is the most likely.
    """

    ids: Tensor
    logits: Tensor
    probabilities: Tensor
    ranks: Tensor


class ValueReader:
    """Reads value vectors as words, as if the residual stream held one of them and nothing else.

    ``logits = W_U · norm(±v_i ⊙ s)``: final norm and unembedding (and a masked model's transform between them) by the
    model's own forward. ``s`` is what stands between the block and the stream: ones, or γ where a norm does (Gemma,
    BERT). A vector is scaled to a root mean square of 1 first, which the final norm would do.

    Parameters
    ----------
    model : any that leaves its answer to final norm and head alone.

    Raises
    ------
    MethodError : its residual stream cannot be followed, or what follows its blocks is no function of one state.

    Reference
    ---------
    Geva et al. 2021, arXiv 2012.14913; Geva et al. 2022, arXiv 2203.14680.
    """

    def __init__(self, model: NeuronModel) -> None:
        self.model = model
        batch = _any_batch(model)
        self.stream: ResidualStream = follow(model, batch)
        check_exit(model, self.stream)

    @torch_defaults()
    def states(self, layer: int, indices: Tensor, signs: Tensor) -> Tensor:
        """What some neurons of a layer write, at a root mean square of 1: ``[neuron, hidden]``.

        Parameters
        ----------
        indices : ``[neuron]``.
        signs : ``[neuron]``, 1 or −1: of the activation.
        """
        slope = self.stream.slope(layer)[0].detach()
        weights = self.model.value_vectors(layer)
        vectors = weights[indices.to(weights.device)] * signs[:, None].to(weights) * slope
        size = vectors.pow(2).mean(-1, keepdim=True).sqrt()
        return vectors / size.clamp_min(torch.finfo(vectors.dtype).tiny)

    @torch_defaults()
    def words(self, states: Tensor, k: int, asked: Tensor | None = None) -> Words:
        """The ``k`` most likely words of each state, and the ranks of words that are asked for.

        Parameters
        ----------
        states : ``[row, hidden]`` of the residual stream behind the last block.
        asked : ``[row, asked]``, word ids; negative ones have rank 0.
        """
        asked = states.new_empty(len(states), 0, dtype=torch.long) if asked is None else asked
        parts = [
            self._words(part, k, some)
            for part, some in zip(states.split(self._rows), asked.split(self._rows), strict=True)
        ]
        return Words(*(torch.cat(each) for each in zip(*parts, strict=True)))

    @property
    def _rows(self) -> int:
        """Rows whose logits fit the memory budget."""
        words = int(self.model.model.config.get_text_config().vocab_size)
        row = LOGIT_TENSORS * words * max(4, self.model.dtype.itemsize)
        return max(1, min(MOST_ROWS, self.model.execution.row_budget(self.model.device) // row))

    def _words(self, states: Tensor, k: int, asked: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head = self.model.head
        logits = head.logits(exit_early(self.model, self.stream, states))
        highest, ids = logits.topk(min(k, logits.shape[1]), dim=1)
        probabilities = (highest - logits.logsumexp(1, keepdim=True)).exp()
        ranks = torch.zeros_like(asked)
        for column, words in enumerate(asked.T):
            above = logits > logits.gather(1, words.clamp_min(0)[:, None])
            ranks[:, column] = torch.where(words < 0, 0, above.sum(1) + 1)
        return ids, highest, probabilities, ranks


def _any_batch(model: NeuronModel) -> Batch:
    """A short prompt that means nothing."""
    ids = dummy_inputs(model.model, model.kind)
    fact = Fact("any", "any", "any", "any", (SLOT,))
    source = ids.get("source_ids")
    prompt = Prompt(
        fact,
        SLOT,
        tuple(ids["input_ids"][0].tolist()),
        position=ids["input_ids"].shape[1] - 1,
        answer_id=0,
        source=() if source is None else tuple(source[0].tolist()),
    )
    return Batch((prompt,), model.device)


@torch_defaults()
def read_values(model: NeuronModel, neurons: NeuronSet | None = None, k: int = 10, sign: int = 1) -> pd.DataFrame:
    """The words that neurons write: the most likely ones of their value vectors through final norm and unembedding.

    ``logits = W_U · norm(±v_i ⊙ s)``; see `ValueReader`. A neuron with a negative activation (gated blocks have many)
    writes the words of ``sign=-1``.

    Parameters
    ----------
    model : from `load_model`.
    neurons : which; all if not given.
    k : words of each.
    sign : 1 or −1, of the activation.

    Returns
    -------
    ``layer, neuron, sign, rank, word, word_id, logit, probability``; ranks count from 1.

    Raises
    ------
    NeuronError : a neuron does not exist.
    ConfigError : ``k`` is not positive, or ``sign`` is neither 1 nor −1.
    MethodError : the model's residual stream cannot be followed.

    Reference
    ---------
    Geva et al. 2022, arXiv 2203.14680.
    """
    check_model(model)
    if k < 1:
        raise ConfigError(f"k is {k}; expected at least one word.")
    if sign not in (1, -1):
        raise ConfigError(f"sign is {sign!r}; expected 1 or -1, the sign of the neurons' activations.")
    chosen = all_neurons(model) if neurons is None else check_neurons(model, neurons)
    reader, parts = ValueReader(model), []
    for layer in sorted(chosen.layers):
        indices = torch.tensor([n.index for n in chosen if n.layer == layer], device=model.device)
        found = reader.words(reader.states(layer, indices, torch.full_like(indices, sign)), k)
        parts.append(words_frame(model, layer, indices, found).assign(sign=sign))
    columns = ["layer", "neuron", "sign", "rank", "word", "word_id", "logit", "probability"]
    frame: pd.DataFrame = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    return frame


def words_frame(model: NeuronModel, layer: int, indices: Tensor, words: Words) -> pd.DataFrame:
    """Words of some neurons of a layer, one row per neuron and word."""
    n, k = words.ids.shape
    ids = words.ids.flatten().tolist()
    names = {word: decoded(model, [word]) for word in set(ids)}
    frame: pd.DataFrame = pd.DataFrame(
        {
            "layer": layer,
            "neuron": indices.cpu().repeat_interleave(k).numpy(),
            "rank": [rank for _ in range(n) for rank in range(1, k + 1)],
            "word": [names[word] for word in ids],
            "word_id": ids,
            "logit": words.logits.double().flatten().cpu().numpy(),
            "probability": words.probabilities.double().flatten().cpu().numpy(),
        }
    )
    return frame


def decoded(model: NeuronModel, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """Tokens as text; a token that is none, and ids beyond the tokenizer's, as a number."""
    text = str(model.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
    return text or "".join(f"<{each}>" for each in ids if not skip_special_tokens)
