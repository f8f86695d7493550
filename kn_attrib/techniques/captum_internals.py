"""The private functions of Captum that the package needs, called here and nowhere else.

Captum's public entries take the name of a quadrature rule but no nodes of one's own, and give a layer's gradients or
its activations but not both from one pass. ``tests/techniques/test_captum_internals.py`` says which versions of Captum
these calls are known to hold for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from captum import attr
from captum._utils.gradient import compute_layer_gradients_and_eval
from torch import Tensor, nn

Layers = Sequence[tuple[Tensor, ...]]
"""Per layer what its module has read, a tuple of tensors."""


def integrated_gradients_at(
    function: Callable[..., Tensor],
    inputs: Tensor,
    baselines: Tensor | float,
    arguments: tuple[Tensor, ...],
    nodes: Sequence[float],
) -> Tensor:
    """Captum's integrated gradients with all step sizes 1 at given nodes of the path; weights are the function's.

    ``(inputs − baselines) · Σ_s ∇ function(baselines + α_s (inputs − baselines))``, all nodes in one batch.

    Parameters
    ----------
    function : of ``[node · row, …]`` and the further arguments, repeated as often.
    inputs, baselines : ``[row, …]``, where the paths end and begin.
    arguments : further arguments of the function, ``[row]`` each.
    nodes : ``α`` on [0, 1].

    Returns
    -------
    ``[row, …]``
    """
    (scores,) = attr.IntegratedGradients(function)._attribute(
        inputs=(inputs,),
        baselines=(baselines,),
        target=None,
        additional_forward_args=arguments,
        n_steps=len(nodes),
        step_sizes_and_alphas=([1.0] * len(nodes), list(nodes)),
    )
    found: Tensor = scores
    return found


def layer_gradients_and_inputs(
    function: Callable[..., Tensor], layers: Sequence[nn.Module], inputs: Tensor, arguments: tuple[Tensor, ...]
) -> tuple[Layers, Layers]:
    """Gradients with respect to what each module reads, and what it reads, from one forward and one backward.

    Parameters
    ----------
    function : of ``inputs`` and the further arguments.
    layers : modules that the function runs.
    """
    gradients, read = compute_layer_gradients_and_eval(
        function, list(layers), (inputs,), additional_forward_args=arguments, attribute_to_layer_input=True
    )
    return gradients, read
