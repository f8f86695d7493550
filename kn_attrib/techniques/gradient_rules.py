"""Other ways back through a model: hooks that change gradients and leave every value as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import activations as hf_activations

from kn_attrib.models.anatomy import find_blocks, find_ffn_inputs
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.techniques.frozen_norms import frozen, norms_replaced

HF_ACTIVATIONS = {
    cls for cls in vars(hf_activations).values() if isinstance(cls, type) and cls.__name__.endswith("Activation")
}
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    *HF_ACTIVATIONS,
)
ATTENTION = (nn.functional.scaled_dot_product_attention,)
SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax)


@contextmanager
def without_ffn_gradient(model: NeuronModel, layer: int) -> Iterator[None]:
    """While active, no gradient passes through what a layer's feed-forward block writes."""
    # Times zero rather than cut off: the layer's own neurons stay in the graph.
    handle = model.ffn_outputs[layer].register_forward_hook(lambda _, __, output: output.detach() + 0 * output)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def relevance_rules(
    model: NeuronModel, *, norms: bool = True, activations: bool = True, gates: bool = True, attention: bool = True
) -> Iterator[None]:
    """While active, gradients follow the rules of layer-wise relevance propagation; values do not change.

    Parameters
    ----------
    norms : statistics of layer and RMS norms are constants.
    activations : the derivative of an activation function is ``f(z)/z``.
    gates : each branch of a gated feed-forward block gets half.
    attention : attention patterns are constants.
    """
    with ExitStack() as stack:
        if norms:
            stack.enter_context(norms_replaced(model.model, frozen))
        if activations:
            _hook(stack, [m for m in model.model.modules() if isinstance(m, ACTIVATIONS)], _secant)
        if gates:
            _hook(stack, _gate_inputs(model), _halved)
        if attention:
            stack.enter_context(_ConstantPatterns())
        yield


def _hook(stack: ExitStack, modules: Sequence[nn.Module], rule: Callable[..., Any]) -> None:
    for module in dict.fromkeys(modules):
        stack.callback(module.register_forward_hook(rule).remove)


def _secant(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """``z · const(f(z)/z)``, corrected so that the value is the function's own to the last digit."""
    z = inputs[0]
    divisor = torch.where(z == 0, torch.ones_like(z), z)
    ratio = torch.where(z == 0, torch.zeros_like(z), output / divisor).detach()
    linear = z * ratio
    return linear + (output - linear).detach()


def _halved(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The same value, half the gradient."""
    return output / 2 + (output / 2).detach()


def _gate_inputs(model: NeuronModel) -> list[nn.Module]:
    """The linears into gated feed-forward blocks: a gate and an up projection, or one that is both."""
    found = []
    for block in find_blocks(model):
        linears = find_ffn_inputs(block, model.n_neurons)
        fused = len(linears) == 1 and _width(linears[0]) == 2 * model.n_neurons
        if fused or len(linears) == 2:
            found += linears
    return found


def _width(linear: nn.Module) -> int:
    features = getattr(linear, "out_features", None)
    return int(getattr(linear, "nf", 0) if features is None else features)


class _ConstantPatterns(TorchFunctionMode):
    """Attention patterns carry no gradient: queries and keys are detached, or the softmax that makes them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ATTENTION:
            query, key, *others = args
            return func(query.detach(), key.detach(), *others, **kwargs)
        result = func(*args, **kwargs)
        return result.detach() if func in SOFTMAX else result
