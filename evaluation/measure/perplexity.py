"""Perplexity of plain text: the exponential, to base e, of the mean loss in nats."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, PromptError
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.passes import arguments
from kn_attrib.models.torch_defaults import torch_defaults

ROWS = 256


@torch_defaults()
def perplexity(model: NeuronModel, texts: Sequence[str]) -> float:
    """Perplexity per token of ordinary sentences, under whatever interventions on all positions are active.

    ``exp(Σ −ln p(token | context) / number of tokens)``, the sum over the tokens of all texts. Causal models: the
    context is what stands before, and a text's first token is given. Masked models: every token that is not special is
    masked in turn and its context is the rest (pseudo-perplexity, Salazar et al. 2020, arXiv 1910.14659). The loss is
    in nats, so its base is e; the exponential to base 2 of the same loss is a smaller number and no perplexity.

    Parameters
    ----------
    texts : sentences without slots; those too long for the model are an error.

    Raises
    ------
    ConfigError : there is no text, or the model is an encoder-decoder.
    PromptError : a text has fewer than two tokens, or more than the model reads.
    """
    check_model(model)
    if model.kind == "encoder-decoder":
        raise ConfigError("perplexity is of one stack's text; expected a masked or a causal model.")
    encoded = [_ids(model, text) for text in texts]
    if not encoded:
        raise ConfigError("texts is empty; expected at least one sentence.")
    losses = _masked(model, encoded) if model.kind == "masked" else _causal(model, encoded)
    return math.exp(float(losses.double().mean()))


def _ids(model: NeuronModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text)["input_ids"]
    if not 2 <= len(ids) <= model.encoder.most_tokens:
        raise PromptError(f"text {text[:60]!r} is {len(ids)} tokens; expected 2 to {model.encoder.most_tokens}.")
    return ids


def _causal(model: NeuronModel, encoded: Sequence[list[int]]) -> Tensor:
    """Losses of all tokens but each text's first."""
    groups: dict[int, list[list[int]]] = defaultdict(list)
    for ids in encoded:
        groups[len(ids)].append(ids)
    found = []
    for group in groups.values():
        for start in range(0, len(group), ROWS):
            rows = torch.tensor(group[start : start + ROWS], device=model.device)
            last = torch.full((len(rows),), rows.shape[1] - 1, device=model.device)
            given = arguments(model.kind, {"input_ids": rows})
            with model.running(last), torch.no_grad():
                final = model.head.final(partial(model.model, **given), None, rows.shape[1])
            found.append(-model.head.gold(final[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).logprob)
    return torch.cat(found)


def _masked(model: NeuronModel, encoded: Sequence[list[int]]) -> Tensor:
    """Losses of all tokens that are not special, each masked on its own."""
    special = set(model.tokenizer.all_special_ids)
    rows: dict[int, list[tuple[list[int], int, int]]] = defaultdict(list)
    for ids in encoded:
        for place, token in enumerate(ids):
            if token not in special:
                hidden = [*ids[:place], int(model.tokenizer.mask_token_id or 0), *ids[place + 1 :]]
                rows[len(ids)].append((hidden, place, token))
    if not rows:
        raise PromptError("no text has a token that is not special; expected ordinary sentences.")
    found = []
    for group in rows.values():
        for start in range(0, len(group), ROWS):
            hidden_ids, places, tokens = zip(*group[start : start + ROWS], strict=True)
            positions = torch.tensor(places, device=model.device)
            inputs = torch.tensor(hidden_ids, device=model.device)
            gold = torch.tensor(tokens, device=model.device)
            with torch.no_grad():
                found.append(-model.gold(positions, gold, input_ids=inputs).logprob)
    return torch.cat(found)
