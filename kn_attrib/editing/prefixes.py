"""What a model says unasked: short texts put before a prompt, so that a subject is read in several contexts."""

from __future__ import annotations

import unicodedata

import torch

from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.randomness import torch_generator

LENGTHS = (5, 10)
"""Tokens of the texts, the start token counted."""
LIKELY = 5
"""Each token is drawn from so many, the most likely ones."""


@torch_defaults()
def generated_prefixes(model: NeuronModel, count: int, seed: int) -> tuple[str, ...]:
    """So many texts of 5 and so many of 10 tokens that a causal model begins with, each with ``". "`` behind it.

    Each token is drawn from the five most likely ones, by their probabilities. None for models of other kinds, and
    where the tokenizer has no token that a text begins with.

    Reference
    ---------
    Meng et al. 2022, arXiv 2202.05262, appendix E.5, and its code (which draws without a seed).
    """
    starts = (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id)
    start = next((each for each in starts if isinstance(each, int)), None)
    if model.kind != "causal" or start is None or count < 1:
        return ()
    generator = torch_generator(seed, "prefixes")
    found = []
    for length in LENGTHS:
        ids = torch.full((count, 1), start, device=model.device)
        for _ in range(length - 1):
            last = torch.full((count,), ids.shape[1] - 1, device=model.device)
            with torch.no_grad():
                logits, words = model.logits(last, input_ids=ids).topk(min(LIKELY, _words(model)))
            drawn = torch.multinomial(logits.double().cpu().softmax(-1), 1, generator=generator).to(words.device)
            ids = torch.cat([ids, words.gather(1, drawn)], dim=1)
        found += [f"{_text(model, row)}. " for row in ids.tolist()]
    return tuple(found)


def _words(model: NeuronModel) -> int:
    return int(model.model.config.get_text_config().vocab_size)


def _text(model: NeuronModel, ids: list[int]) -> str:
    text = str(model.tokenizer.decode(ids, skip_special_tokens=True))
    return unicodedata.normalize("NFKD", text).replace("\n\n", " ")
