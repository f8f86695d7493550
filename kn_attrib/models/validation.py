"""What must hold of a model's feed-forward neurons before any number about them is trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import Edit, NeuronModel, dtype_name
from kn_attrib.models.passes import DUMMY_TOKENS, dummy_inputs
from kn_attrib.models.torch_defaults import torch_defaults

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
ORDINARY = "In 1889 the Eiffel Tower was opened in Paris, the capital of France."
ORDINARY_TOKENS = 24
"""Most tokens of it that are read: small models read no more."""
CANDIDATES = 64
"""Neurons of a layer among which the one with the longest value vector is changed."""


@dataclass(frozen=True)
class Validation:
    """What `validate` measured.

    Attributes
    ----------
    output_error : largest relative difference over layers between the recorded vector times the output weight plus
        bias and what the feed-forward output linear gave.
    least_effect : smallest change over layers of the answer's logits when one neuron is changed.
    """

    output_error: float
    least_effect: float


@torch_defaults()
def check_finite(model: NeuronModel) -> None:
    """Raise ModelError if the logits of an ordinary text, with the special tokens that begin it, are not finite.

    Large models overflow in half precision at the first token above all, which the dummy input does not have.
    """
    encoded = list(model.tokenizer(ORDINARY)["input_ids"])[: min(ORDINARY_TOKENS, model.encoder.most_tokens)]
    embedding: Any = model.model.get_input_embeddings()
    if not encoded or max(encoded) >= embedding.weight.shape[0]:
        return  # a tokenizer of another model is found out by those who ask with it
    ids = torch.tensor([encoded], device=model.device)
    inputs = dummy_inputs(model.model, model.kind)
    inputs |= {"source_ids": ids} if model.kind == "encoder-decoder" else {"input_ids": ids}
    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=model.device)
    with torch.no_grad():
        logits = model.logits(last, **inputs)
    # Some models rule words out with -inf.
    _check_numbers(model, logits.nan_to_num(neginf=0.0, nan=torch.nan, posinf=torch.inf), "of an ordinary text")


@torch_defaults()
def check_answers(model: NeuronModel, batch: Batch) -> None:
    """Raise ModelError if the log-probability of a query's answer is not a number."""
    _check_numbers(model, model.answers(batch).logprob.nan_to_num(neginf=0.0, nan=torch.nan), "of a prompt's answer")


def _check_numbers(model: NeuronModel, values: Tensor, what: str) -> None:
    if bool(values.isfinite().all()):
        return
    dtype = dtype_name(model)
    wider = {"float16": "bfloat16' or dtype='float32", "bfloat16": "float32"}
    todo = (
        f"Its numbers are too large for {dtype}: load it with dtype='{wider[dtype]}'."
        if dtype in wider
        else "Are its weights damaged?"
    )
    raise ModelError(f"{model.name!r}: the logits {what} in {dtype} are not finite (nan or inf). {todo}")


@torch_defaults()
def validate(model: NeuronModel) -> Validation:
    """Check a model's neurons with one forward pass of a short dummy input.

    - the output linear of each layer writes vectors of the model's hidden size;
    - the vectors recorded in each layer have the shape ``[row, token, neuron]`` and are read once per layer;
    - the recorded vector times the output weight plus bias reproduces the output linear's output;
    - changing one neuron of each layer at the answer position changes the logits there.

    Raises
    ------
    ModelError : one of these does not hold; the layer and the reason are named.
    """
    for layer in range(model.n_layers):
        _check_width(model, layer)
    layers, position = model.n_layers, DUMMY_TOKENS - 1
    # Row 0 is clean, row l + 1 has a neuron of layer l changed, the last row shows how much equal rows differ.
    rows = layers + 2
    recorded: dict[int, Tensor] = {}

    def probe(layer: int) -> Edit:
        def edit(vectors: Tensor) -> Tensor:
            _check_shape(model, layer, vectors, rows)
            recorded[layer] = vectors[0, position].clone()
            neuron = int(model.value_vectors(layer)[:CANDIDATES].norm(dim=-1).argmax())
            vectors = vectors.clone()
            vectors[layer + 1, position, neuron] += 4 * vectors[0].abs().max().clamp_min(1)
            return vectors

        return edit

    inputs = dummy_inputs(model.model, model.kind, rows)
    positions = torch.full((rows,), position, device=model.device)
    edits = {layer: probe(layer) for layer in range(layers)}
    with _outputs(model) as outputs, torch.no_grad(), model.edited(edits):
        logits = model.logits(positions, **inputs)
    errors = [_output_error(model, layer, recorded, outputs, position) for layer in range(layers)]
    return Validation(max(errors), _least_effect(model, logits))


def _check_width(model: NeuronModel, layer: int) -> None:
    hidden = getattr(model.model.config.get_text_config(), "hidden_size", None)
    width = model.value_vectors(layer).shape[1]
    if hidden is not None and width != hidden:
        raise ModelError(
            f"{_where(model, layer)} writes vectors of {width} values; the hidden states have {hidden}. Expected the "
            "linear that ends the feed-forward block, not one inside it."
        )


def _check_shape(model: NeuronModel, layer: int, vectors: Tensor, rows: int) -> None:
    expected = (rows, DUMMY_TOKENS, model.n_neurons)
    if tuple(vectors.shape) != expected:
        raise ModelError(
            f"{_where(model, layer)} reads {list(vectors.shape)}; expected [row, token, neuron] = {list(expected)} of "
            "the stack that answers."
        )


@contextmanager
def _outputs(model: NeuronModel) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Collects what each output linear returns, call by call."""
    found: dict[nn.Module, list[Tensor]] = defaultdict(list)

    def note(site: nn.Module, _: object, output: Tensor) -> None:
        # Cloned: Falcon adds the attention's output to it in place.
        found[site].append(output.clone())

    handles = [site.register_forward_hook(note) for site in dict.fromkeys(model.ffn_outputs)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _output_error(
    model: NeuronModel, layer: int, recorded: dict[int, Tensor], outputs: dict[nn.Module, list[Tensor]], position: int
) -> float:
    site = model.ffn_outputs[layer]
    serves = [i for i, each in enumerate(model.ffn_outputs) if each is site]
    calls = outputs.get(site, [])
    if layer not in recorded or len(calls) != len(serves):
        raise ModelError(f"{_where(model, layer)} ran {len(calls)} times in one pass; expected {len(serves)}.")
    output = calls[serves.index(layer)]
    output = output.reshape(-1, DUMMY_TOKENS, output.shape[-1])[0, position].double()
    bias = getattr(site, "bias", None)
    made = recorded[layer] @ model.value_vectors(layer) + (0 if bias is None else bias.detach())
    error = float((made.double() - output).norm() / output.norm().clamp_min(1e-12))
    if not error <= TOLERANCE.get(model.dtype, 1e-4):
        raise ModelError(
            f"{_where(model, layer)}: activations times value vectors differ from its output by {error:.1e} of its "
            "size; the module does more than a linear map (an adapter, quantised weights?): its inputs are not neurons."
        )
    return error


def _least_effect(model: NeuronModel, logits: Tensor) -> float:
    noise = float((logits[-1] - logits[0]).abs().max())
    effects = (logits[1:-1] - logits[0]).abs().amax(-1)
    for layer, effect in enumerate(effects.tolist()):
        silent = not model.value_vectors(layer)[:CANDIDATES].any()
        if not effect > 10 * noise and not silent:
            raise ModelError(
                f"{_where(model, layer)}: changing a neuron at the answer position does not change the answer's logits "
                f"(by {effect:.1e}); this is not the feed-forward output of the stack that answers."
            )
    return float(effects.min())


def _where(model: NeuronModel, layer: int) -> str:
    pattern = model.architecture.ffn_output
    return f"{type(model.model).__name__}, layer {layer} ({pattern!r}, {model.architecture.origin})"
