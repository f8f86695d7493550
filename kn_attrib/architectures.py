"""Where the feed-forward output linear is, per ``model_type``: data, not code.

The *neuron vector* of a layer is what enters this linear (after the activation function; for gated blocks
after the product ``act(gate) * up``). ``{i}`` stands for the layer's index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kn_attrib.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Names of the modules that matter in one family of models.

    Parameters
    ----------
    model_type : ``config.model_type`` of the family.
    ffn_output : path of the feed-forward output linear of layer ``{i}``.
    """

    model_type: str
    ffn_output: str


ARCHITECTURES: dict[str, Architecture] = {
    row.model_type: row
    for row in (
        Architecture("bert", "bert.encoder.layer.{i}.output.dense"),
        Architecture("roberta", "roberta.encoder.layer.{i}.output.dense"),
        Architecture("xlm-roberta", "roberta.encoder.layer.{i}.output.dense"),
        Architecture("camembert", "roberta.encoder.layer.{i}.output.dense"),
        Architecture("distilbert", "distilbert.transformer.layer.{i}.ffn.lin2"),
        Architecture("gpt2", "transformer.h.{i}.mlp.c_proj"),
        Architecture("llama", "model.layers.{i}.mlp.down_proj"),
    )
}


def find_sites(model: PreTrainedModel) -> list[nn.Module]:
    """The feed-forward output linears of ``model``, one per layer in order.

    Raises
    ------
    ModelError : the model type is not in the table, or the table's path leads nowhere.
    """
    model_type = str(model.config.model_type)
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"model type {model_type!r} ({type(model).__name__}) is not supported yet. "
            f"Supported: {', '.join(sorted(ARCHITECTURES))}."
        )
    pattern = ARCHITECTURES[model_type].ffn_output
    path = re.compile("^" + re.escape(pattern).replace(r"\{i\}", r"(\d+)") + "$")
    found = {int(m[1]): module for name, module in model.named_modules() if (m := path.match(name))}
    sites = [found[i] for i in sorted(found)]
    if not sites or sorted(found) != list(range(len(found))):
        raise ModelError(f"{type(model).__name__} has no modules {pattern!r} for i = 0, 1, …; found {sorted(found)}.")
    if len({value_matrix(site).shape for site in sites}) > 1:
        raise ModelError(f"{type(model).__name__}: feed-forward widths differ between layers; expected one width.")
    return sites


def value_matrix(site: nn.Module) -> nn.Parameter:
    """The weight of a feed-forward output linear as ``[neuron, hidden]``, whatever way it is stored.

    Raises
    ------
    ModelError : the module is neither a Linear nor a Conv1D.
    """
    if isinstance(site, nn.Linear):
        return site.weight.T  # type: ignore[return-value]  # a view of the parameter
    if isinstance(site, Conv1D):
        return site.weight
    raise ModelError(f"feed-forward output is a {type(site).__name__}; expected torch.nn.Linear or Conv1D.")
