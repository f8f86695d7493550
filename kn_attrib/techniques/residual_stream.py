"""The residual stream: what a feed-forward block writes to it, where that goes, and early exits from it.

One clean pass in which gradients flow along the residual stream alone: every linear of the blocks that writes to the
stream is cut off from its input, and norms keep the statistics of the clean pass. Everything left is linear, and the
gradient of anything with respect to what a block writes is its *direct* effect there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.tail import run_tail
from kn_attrib.models.anatomy import find_ffn_inputs, outer_and_inner_blocks
from kn_attrib.models.neuron_model import Edit, NeuronModel
from kn_attrib.techniques.frozen_norms import ROUGH_TOLERANCE, TOLERANCE, frozen, norms_replaced


@dataclass
class ResidualStream:
    """What one clean pass leaves behind; tensors keep the graph of direct effects.

    Attributes
    ----------
    writes : per layer a zero ``[prompt, hidden]`` that was added to what the feed-forward output linear gives at the
        answer position: gradients with respect to it are direct effects.
    written : per layer what that linear gives there, ``[prompt, hidden]``.
    activations : per layer ``[prompt, neuron]`` at the answer position.
    reads : per layer what the feed-forward block reads at all tokens, or None where its first linear is not seen.
    after : per layer the residual stream behind the feed-forward block at the answer position, ``[prompt, hidden]``.
    final : ``[prompt, …]``, what the head makes its answer of.
    packs : block -> number of values in its output, 0 for a bare tensor.
    token : ``[1, 1]``, id of a token that the model has read.
    """

    writes: list[Tensor] = field(default_factory=list)
    written: list[Tensor] = field(default_factory=list)
    activations: list[Tensor] = field(default_factory=list)
    reads: list[Tensor | None] = field(default_factory=list)
    after: list[Tensor] = field(default_factory=list)
    final: Tensor = field(default_factory=lambda: torch.empty(0))
    packs: dict[nn.Module, int] = field(default_factory=dict)
    token: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.long))

    def effects(self, target: Tensor) -> list[Tensor]:
        """Direct effect of each layer's write on a scalar: its gradients, ``[prompt, hidden]`` each."""
        found = torch.autograd.grad(target, self.writes, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for w, g in zip(self.writes, found, strict=True)]

    def slope(self, layer: int) -> Tensor:
        """What a layer's write is multiplied by on its way to the stream behind its block, ``[prompt, hidden]``.

        Ones where the write is simply added; γ/σ where a norm stands behind it, before the addition or after.
        """
        (found,) = torch.autograd.grad(self.after[layer].sum(), self.writes[layer], retain_graph=True)
        return found

    def before(self, layer: int) -> Tensor:
        """The stream as it would be behind a layer's block without what its feed-forward block writes.

        In pre-norm models the residual stream after the layer's attention, ``[prompt, hidden]``.
        """
        return self.after[layer].detach() - self.slope(layer) * self.written[layer]


def follow(model: NeuronModel, batch: Batch) -> ResidualStream:
    """Run a batch once and keep what its residual stream is made of (one forward pass).

    Raises
    ------
    MethodError : the layers do not stand in a list of blocks, or one of their norms is of an unknown kind.
    """
    stream = ResidualStream(token=batch.input_ids[:1, -1:])
    with torch.enable_grad(), _listening(model, stream), norms_replaced(model.model, frozen):
        stream.final = model.final(batch.positions, **batch.inputs())
    counts = {len(stream.writes), len(stream.after), len(stream.activations), len(stream.reads)}
    if counts != {model.n_layers}:
        raise MethodError(f"{model.name}: its blocks do not each call one feed-forward output linear once, in order.")
    return stream


def exit_early(model: NeuronModel, stream: ResidualStream, hidden: Tensor) -> Tensor:
    """What the head makes its answer of (`Head.gold`) for states ``[row, hidden]`` of the stream, by the tail alone."""
    with torch.no_grad(), model.running(torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)):
        final = run_tail(model, list(stream.packs), list(stream.packs.values()), hidden[:, None], stream.token)
    return model.execution.cost.count(final)


def check_exit(model: NeuronModel, stream: ResidualStream) -> None:
    """Leaving behind the last block must give the clean answer.

    Raises
    ------
    MethodError : it does not: what follows the blocks is no function of one token's state alone.
    """
    clean = stream.final.detach()
    error = (exit_early(model, stream, stream.after[-1].detach()) - clean).norm() / clean.norm()
    if not error <= TOLERANCE.get(model.dtype, ROUGH_TOLERANCE):
        raise MethodError(
            f"{model.name}: final norm and head alone do not give the model's own answer behind its last block (they "
            f"differ by {error:.1e}), so no early exit can be read off; use logit_attribution or ablation."
        )


@contextmanager
def _listening(model: NeuronModel, stream: ResidualStream) -> Iterator[None]:
    """While active, a pass fills the stream and gradients flow along it alone."""
    blocks, inner = outer_and_inner_blocks(model)
    readers = {module: find_ffn_inputs(module, model.n_neurons) for module in dict.fromkeys(inner)}
    sites = set(model.ffn_outputs)
    # Not cut off: linears that make the neurons, and the ones that read them, which have a hook of their own.
    spared = sites.union(*readers.values())
    with ExitStack() as stack:

        def hook(module: nn.Module, call: Callable[..., Any]) -> None:
            stack.callback(module.register_forward_hook(call).remove)

        for block in blocks:
            for module in block.modules():
                if isinstance(module, nn.Linear | Conv1D) and module not in spared:
                    hook(module, _cut)
            hook(block, _on_outer_block(stream))
        for site in sites:
            hook(site, _on_site(model, stream))
        for module, found in readers.items():
            for reader in found[:1]:
                hook(reader, _on_reader(stream))
            hook(module, _on_block(model, stream, seen=bool(found)))
        stack.enter_context(model.edited({layer: _keep(model, stream) for layer in range(model.n_layers)}))
        yield


def _cut(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.detach()


def _keep(model: NeuronModel, stream: ResidualStream) -> Edit:
    def edit(vectors: Tensor) -> Tensor:
        stream.activations.append(model.at_answer(vectors))
        return vectors

    return edit


def _on_site(model: NeuronModel, stream: ResidualStream) -> Callable[..., Tensor]:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        rows = torch.arange(len(model.positions), device=output.device)
        full = output.detach().clone(memory_format=torch.contiguous_format).view(len(rows), -1, output.shape[-1])
        written = full[rows, model.positions]
        write = torch.zeros_like(written, requires_grad=True)
        stream.written.append(written)
        stream.writes.append(write)
        full[rows, model.positions] += write
        return full.view(output.shape)

    return hook


def _on_outer_block(stream: ResidualStream) -> Callable[..., None]:
    def hook(block: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        stream.packs[block] = len(output) if isinstance(output, tuple) else 0

    return hook


def _on_reader(stream: ResidualStream) -> Callable[..., None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...], __: Any) -> None:
        stream.reads.append(inputs[0])

    return hook


def _on_block(model: NeuronModel, stream: ResidualStream, seen: bool) -> Callable[..., None]:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        stream.after.append(model.at_answer(states))
        if not seen:
            stream.reads.append(None)

    return hook
