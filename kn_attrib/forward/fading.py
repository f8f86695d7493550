"""How far a layer's activations must fade before its block notices: norms behind feed-forward blocks hide scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.errors import ModelError
from kn_attrib.forward.row_objective import RowObjective
from kn_attrib.forward.wave import WaveForward
from kn_attrib.models.anatomy import find_blocks
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.passes import dummy_inputs

FAINTEST, POINTS = 1e-6, 121
"""The smallest scale that is looked for, and on how many points between it and 1 (geometric)."""
ANSWERED = 2**-0.5
"""Share of a norm's whole answer at its scale: ``α/√(α² + s²)`` at ``α = s``."""
EVEN = 0.5
"""Scales above this need no crowding of nodes."""


def fading_scales(function: RowObjective) -> Tensor | None:
    """Per prompt and layer the factor ``s`` at which a norm behind the feed-forward block begins to see it fade.

    Of an RMS norm, ``s = √ε / rms(a·V)``: below, the norm passes on what it is given, above, always the same. ``∞``
    where no norm stands between the block and the residual stream.

    Returns
    -------
    ``[prompt, layer]``, or None if no layer has such a norm.
    """
    model = function.forward.model
    norms = _norms_behind(model)
    if not any(norm is not None for norm in norms):
        return None
    written = _written(function)
    scales = torch.full(written.shape[:2], torch.inf, dtype=torch.float64, device=written.device)
    for layer, norm in enumerate(norms):
        if norm is not None:
            bias = getattr(model.ffn_outputs[layer], "bias", None)
            scales[:, layer] = _scale(norm, written[:, layer], None if bias is None else bias.detach())
    return scales


def _scale(norm: nn.Module, written: Tensor, bias: Tensor | None) -> Tensor:
    """``[row]``, from the norm's own answers to ``written [row, hidden]`` at smaller and smaller factors."""
    still = torch.zeros_like(written[0]) if bias is None else bias
    alphas = torch.logspace(torch.tensor(FAINTEST).log10().item(), 0, POINTS, dtype=torch.float64)
    alphas = torch.cat([torch.zeros(1, dtype=torch.float64), alphas]).to(written.device)
    faded = still + alphas.to(written)[:, None, None] * (written - still)
    with torch.no_grad():
        answers = norm(faded).double()
    sizes = (answers - answers[0]).norm(dim=-1)
    share = sizes / sizes[-1].clamp_min(torch.finfo(torch.float64).tiny)
    first = (share >= ANSWERED).to(torch.int).argmax(0)
    found = alphas[first]
    return torch.where(found > EVEN, torch.full_like(found, torch.inf), found)


def _written(function: RowObjective) -> Tensor:
    """What each feed-forward output linear gives at the answer position: ``[prompt, layer, hidden]``."""
    forward = function.forward
    if isinstance(forward, WaveForward):
        return forward.clean_pass.written_at(forward.positions)
    model, batch, found = forward.model, forward.batch, []
    rows = torch.arange(len(batch), device=batch.device)

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        found.append(output.view(len(batch), -1, output.shape[-1])[rows, model.positions].clone())

    with ExitStack() as stack, torch.no_grad():
        for site in dict.fromkeys(model.ffn_outputs):
            stack.callback(site.register_forward_hook(keep).remove)
        model.final(batch.positions, **batch.inputs())
    return torch.stack(found, 1)


def _norms_behind(model: NeuronModel) -> list[nn.Module | None]:
    """Per layer the module that reads what its output linear gives and nothing else; found once per model."""
    if model.execution.norms_behind is None:
        try:
            blocks = find_blocks(model)
        except ModelError:
            model.execution.norms_behind = [None] * model.n_layers
            return model.execution.norms_behind
        inputs = dummy_inputs(model.model, model.kind)
        positions = torch.zeros(1, dtype=torch.long, device=model.device)
        with _watching(blocks, model.ffn_outputs) as seen, torch.no_grad():
            model.final(positions, **inputs)
        model.execution.norms_behind = [seen.get(layer) for layer in range(model.n_layers)]
    return model.execution.norms_behind


@contextmanager
def _watching(blocks: list[nn.Module], sites: list[nn.Module]) -> Iterator[dict[int, nn.Module]]:
    """While active, notes which module without parts reads exactly what each site gives."""
    seen: dict[int, nn.Module] = {}
    given: dict[int, Tensor] = {}

    def note(layer: int) -> Callable[..., None]:
        return lambda _, __, output: given.__setitem__(layer, output)

    def read(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            output, own = given.get(layer), inputs[0] if inputs else None
            same = isinstance(own, Tensor) and output is not None and own.data_ptr() == output.data_ptr()
            if same and not isinstance(module, nn.Dropout | nn.Identity):
                seen.setdefault(layer, module)

        return hook

    with ExitStack() as stack:
        for layer, (block, site) in enumerate(zip(blocks, sites, strict=True)):
            stack.callback(site.register_forward_hook(note(layer)).remove)
            for module in block.modules():
                if module is not site and not any(True for _ in module.children()):
                    stack.callback(module.register_forward_pre_hook(read(layer)).remove)
        yield seen
