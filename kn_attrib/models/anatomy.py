"""Parts of a model found around its feed-forward output linears: blocks, attention, input linears."""

from __future__ import annotations

import re

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kn_attrib.errors import MethodError, ModelError
from kn_attrib.models.matrices import input_matrix, value_matrix
from kn_attrib.models.neuron_model import NeuronModel

ATTENTION_OUTPUT = re.compile(
    r"(?:^|\.)(?:attention\.output\.dense|attention\.(?:dense|out_lin|out_proj)|attn\.(?:o|Wo|c_proj|out_proj)"
    r"|self_attn\.(?:o_proj|out_proj|dense)|self_attention\.dense|SelfAttention\.o)$"
)
"""How the output linears of self-attention are called."""


def gating(model: PreTrainedModel, site: str, width: int) -> str:
    """How the neuron vector is made, told from the linears beside the output linear.

    Parameters
    ----------
    site : name of a feed-forward output linear.
    width : neurons per layer.

    Returns
    -------
    ``"act"`` (not gated), ``"act × up"``, ``"act × up, fused"`` (one linear makes both), or ``"unknown"``.
    """
    for depth in (1, 2):
        widths = [value_matrix(linear).shape[1] for linear in _linears_beside(model, site, depth).values()]
        if 2 * width in widths and width not in widths:
            return "act × up, fused"
        if width in widths:
            return "act × up" if widths.count(width) == 2 else "act"
    return "unknown"


def _linears_beside(model: PreTrainedModel, site: str, depth: int) -> dict[str, nn.Linear | Conv1D]:
    """Linears inside the site's ancestor ``depth`` levels up, by name: not the site itself, nor attention's."""
    parent = ".".join(site.split(".")[:-depth])
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(f"{parent}.")
        and name != site
        and "att" not in name.removeprefix(parent).lower()
        and isinstance(module, nn.Linear | Conv1D)
    }


def find_blocks(model: NeuronModel) -> list[nn.Module]:
    """The block around each feed-forward output linear: its outermost ancestor that stands in a module list.

    Raises
    ------
    ModelError : layers share a module, or a layer stands in no list of blocks.
    """
    listed = _listed_around(model)
    if not all(listed):
        raise ModelError("its layers do not stand in a list of blocks")
    blocks = [outermost for outermost, *_ in listed]
    if len(set(blocks)) < len(blocks):
        raise ModelError("its layers share one module")
    return blocks


def outer_and_inner_blocks(model: NeuronModel) -> tuple[list[nn.Module], list[nn.Module]]:
    """The outermost and the innermost module around each output linear that stands in a list of modules.

    Raises
    ------
    MethodError : a layer stands in no list of modules.
    """
    listed = _listed_around(model)
    if not all(listed):
        raise MethodError(f"{model.name}: its layers do not stand in a list of blocks; its residual stream is hid.")
    outermost = dict.fromkeys(modules[0] for modules in listed)
    return list(outermost), [modules[-1] for modules in listed]


def _listed_around(model: NeuronModel) -> list[list[nn.Module]]:
    """For each feed-forward output linear the modules around it that stand in a module list, outermost first."""
    modules = dict(model.model.named_modules())
    names = {module: name for name, module in modules.items()}
    found = []
    for site in model.ffn_outputs:
        parts = names.get(site, "").split(".")
        ends = [end for end in range(1, len(parts)) if isinstance(modules[".".join(parts[:end])], nn.ModuleList)]
        found.append([modules[".".join(parts[: end + 1])] for end in ends])
    return found


def find_attention(block: nn.Module, site: nn.Module) -> nn.Module | None:
    """A block's attention module, all of it; None if there is not exactly one that can be told by its name."""
    found: dict[str, nn.Module] = {}
    for name, module in block.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        named = any(part in name.rsplit(".", 1)[-1] for part in ("attn", "attention"))
        # A leaf of that name is a norm before or behind it.
        if named and not inside and any(True for _ in module.children()):
            found[name] = module
    if len(found) != 1:
        return None
    (attention,) = found.values()
    return None if site in set(attention.modules()) else attention


def attention_output_path(model: NeuronModel) -> str:
    """Path of the self-attention output linears in the layers of the feed-forward blocks, with ``{i}``.

    Raises
    ------
    ModelError : they cannot be told from their names.
    """
    before, _, _ = model.architecture.ffn_output.partition("{i}")
    layer = re.compile(re.escape(before) + r"\d+(?=\.)")
    found = dict.fromkeys(
        layer.sub(lambda _: before + "{i}", name, count=1)
        for name, module in model.model.named_modules()
        if layer.match(name) and ATTENTION_OUTPUT.search(name) and isinstance(module, nn.Linear | Conv1D)
    )
    if len(found) != 1:
        what = f"several candidates ({', '.join(found)})" if found else "no linear with such a name"
        raise ModelError(
            f"{described(model)} {what} for the output of self-attention beside {model.architecture.ffn_output!r}; "
            "they are known where there is one in each layer, such as 'model.layers.{i}.self_attn.o_proj'."
        )
    return next(iter(found))


def attention_outputs(model: NeuronModel) -> list[nn.Module]:
    """The output linear of each layer's self-attention, whose output is what attention writes.

    Raises
    ------
    ModelError : they cannot be told from their names, or a layer has none.
    """
    path = attention_output_path(model)
    modules = dict(model.model.named_modules())
    found = [modules.get(path.format(i=layer)) for layer in range(model.n_layers)]
    known = [module for module in found if module is not None]
    if len(known) < len(found):
        raise ModelError(f"{described(model)} {path!r} in {len(known)} of {len(found)} layers; expected all.")
    return known


def described(model: NeuronModel) -> str:
    """How messages about a model's parts begin."""
    return f"model type {model.model.config.model_type!r} ({type(model.model).__name__}) has"


def find_ffn_inputs(block: nn.Module, n_neurons: int) -> list[nn.Module]:
    """The linears of a block that make neurons (or gates and neurons) from the hidden state; empty if none is seen."""

    def width(module: nn.Module) -> int:
        if isinstance(module, nn.Linear):
            return module.out_features
        return int(module.nf) if isinstance(module, Conv1D) else 0

    return [
        module
        for name, module in block.named_modules()
        if width(module) in (n_neurons, 2 * n_neurons) and "attn" not in name and "attention" not in name
    ]


def input_linears(model: NeuronModel, layer: int) -> list[nn.Linear | Conv1D]:
    """The linears that make a layer's neurons: one, or the gate's and the other one where it is gated.

    Raises
    ------
    ModelError : they cannot be told, are fused into one, or serve several layers.
    """
    site = model.ffn_outputs[layer]
    if model.ffn_outputs.count(site) > 1:
        raise ModelError(
            f"{model.name}: one feed-forward block serves several layers; no layer has neurons of its own."
        )
    name = next(name for name, module in model.model.named_modules() if module is site)
    for depth in (1, 2):
        beside = _linears_beside(model.model, name, depth)
        found = {each: linear for each, linear in beside.items() if input_matrix(linear).shape[0] == model.n_neurons}
        if len(found) in (1, 2):
            # The gate first: it is the one that passes through the activation function.
            return [found[each] for each in sorted(found, key=lambda each: "gate" not in each and "wi_0" not in each)]
    raise ModelError(
        f"{model.name}: the linears that make the neurons of layer {layer} cannot be told beside {name!r}; expected "
        f"one, or two where the block is gated, of {model.n_neurons} outputs."
    )
