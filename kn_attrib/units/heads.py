"""Attention heads as units: each head's share of the vector that the attention block's output linear reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.anatomy import attention_output_path, described
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.validation import validate
from kn_attrib.units.view import Basis, UnitModel, Units

COUNTS = ("num_attention_heads", "num_heads", "n_head", "n_heads")
"""How configurations call the number of heads."""


class HeadBasis(Basis):
    """Slices of equal width, one for each head; a coefficient is the slice's length.

    Parameters
    ----------
    n_heads : heads of each layer.
    """

    def __init__(self, n_heads: int) -> None:
        self.n_units = n_heads

    @override
    def encode(self, layer: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths and directions of the slices."""
        slices = vectors.unflatten(-1, (self.n_units, -1))
        sizes = slices.norm(dim=-1)
        own = slices / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)[..., None]
        return sizes, own.flatten(-2)

    @override
    def decode(self, layer: int, coefficients: Tensor, own: Tensor) -> Tensor:
        """Slices of these lengths side by side."""
        slices: Tensor = own.unflatten(-1, (self.n_units, -1)) * coefficients[..., None]
        return slices.flatten(-2)


@dataclass(frozen=True)
class Heads(Units):
    """The heads of self-attention (in encoder-decoders: the decoder's), at the answer position.

    The unit is what the head has gathered there, just before the output linear of its block; with grouped queries the
    heads are those of the queries.
    """

    name: ClassVar[str] = "heads"

    def views(self, model: NeuronModel, prompts: Sequence[Prompt]) -> dict[str, UnitModel]:
        """One view for all relations; nothing is fitted.

        Raises
        ------
        ModelError : the heads cannot be found (see `attention_model`).
        """
        site, n_heads = attention_model(model)
        view = UnitModel(site, HeadBasis(n_heads), str(self))
        return {prompt.fact.relation: view for prompt in prompts}


def attention_model(model: NeuronModel) -> tuple[NeuronModel, int]:
    """The model with its neurons where the output linears of self-attention read, validated; and its number of heads.

    Raises
    ------
    ModelError : these linears cannot be told from their names, do not stand in the feed-forward blocks' layers, or
        their width is no multiple of the number of heads.
    """
    pattern = attention_output_path(model)
    # The wave brings rows in at feed-forward blocks only.
    execution = model.execution.on_plain_path()
    try:
        site = NeuronModel(model.model, model.tokenizer, model.kind, model.name, pattern, execution.settings)
        site.encoder = model.encoder
        validate(site)
    except ModelError as error:
        raise ModelError(f"{described(model)} no heads that can be read at {pattern!r}: {error}") from error
    if site.n_layers != model.n_layers:
        raise ModelError(f"{described(model)} {pattern!r} in {site.n_layers} of {model.n_layers} layers; expected all.")
    n_heads = _n_heads(model)
    if not n_heads or site.n_neurons % n_heads:
        raise ModelError(f"{described(model)} {n_heads} heads and an attention output of {site.n_neurons} values.")
    site.execution = execution
    return site, n_heads


def _n_heads(model: NeuronModel) -> int:
    config = model.model.config
    names = ("decoder_attention_heads", *COUNTS) if model.kind == "encoder-decoder" else COUNTS
    counts = [getattr(each, name, None) for each in (config.get_text_config(), config) for name in names]
    return next((count for count in counts if isinstance(count, int)), 0)
