"""What kn_attrib sees in a model: family, layers, neurons, tokenizer and what its validation measured."""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from kn_attrib.facts.encoding import CONVENTIONS
from kn_attrib.models.anatomy import gating
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.validation import validate

ORIGINS = {"table": "listed type", "found": "found by its name, type not listed", "given": "given as ffn_pattern"}
SPACE_MARKS = ("Ġ", "▁")
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "scale_decoder_outputs")


def describe(model: NeuronModel) -> dict[str, str]:
    """What to know about a model before one trusts neurons of it, as label -> text."""
    architecture = model.architecture
    site = model.ffn_outputs[0]
    names = {module: name for name, module in model.model.named_modules()}
    bias = "with bias" if getattr(site, "bias", None) is not None else "without bias"
    shared = f", calls of {len(set(model.ffn_outputs))} shared modules" if architecture.shared_module else ""
    flattened = ", tokens flattened" if architecture.flattened else ""
    normed = ", a norm follows the block" if architecture.post_norm else ""
    report = validate(model)
    return {
        "family": f"{model.model.config.model_type} ({type(model.model).__name__}), {model.kind}",
        "layers": f"{model.n_layers}{shared}",
        "neurons per layer": str(model.n_neurons),
        "site": f"{architecture.ffn_output} ({ORIGINS[architecture.origin]}; {type(site).__name__}, {bias})",
        "neuron vector": gating(model.model, names[site], model.n_neurons) + flattened + normed,
        "head": _head(model, names),
        "tokenizer": _tokenizer(model.tokenizer),
        "answers": f"{model.encoder.convention}: {CONVENTIONS[model.encoder.convention]}",
        "validation": "passed: activations × value vectors + bias give the block's output to "
        f"{report.output_error:.1e}; one changed neuron moves the logits by at least {report.least_effect:.1e}",
    }


def _head(model: NeuronModel, names: dict[Any, str]) -> str:
    head: Any = model.model.get_output_embeddings()
    if head is None:
        return "none found"
    embedding: Any = model.model.get_input_embeddings()
    text = model.model.config.get_text_config()
    values = {name: getattr(text, name, None) for name in LOGIT_SETTINGS}
    settings = [f"{name}={value}" for name, value in values.items() if value not in (None, False)]
    parts = [
        names[head],
        "with bias" if getattr(head, "bias", None) is not None else "without bias",
        "tied to the input embeddings" if head.weight is embedding.weight else "not tied",
        *settings,
    ]
    return ", ".join(parts)


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    tokens = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    at = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    added = tokenizer.convert_ids_to_tokens(full[:at] + full[at + len(plain) :])
    keeps_case = any(re.search("[A-Z]", token) for token in tokens)
    marks = [mark for mark in SPACE_MARKS if any(token.startswith(mark) for token in tokens)]
    parts = [
        type(tokenizer).__name__,
        "fast" if tokenizer.is_fast else "slow",
        f"{len(tokenizer)} tokens",
        f"adds {' '.join(added) or 'no special tokens'}",
        f"mask {tokenizer.mask_token}" if tokenizer.mask_token else "no mask token",
        "keeps case" if keeps_case else "lower-cases",
        f"words carry their leading space ({marks[0]})" if marks else "spaces are no part of tokens",
    ]
    return ", ".join(parts)
