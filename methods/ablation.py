"""Exact single-neuron ablation: what each neuron alone is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import RowObjective, objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer


@register("ablation")
@dataclass(frozen=True)
class Ablation(Scorer):
    """The loss of the objective when the neuron alone is set to a value, for every neuron, exactly.

    ``score_i = f_l(a) − f_l(a with a_i := value)`` at the answer position. Neurons whose activation equals the value
    already score 0 without a forward pass. Misses neurons that stand in for one another. Differences of
    probabilities are formed from log-odds, so that they stay exact where the answer is almost certain.

    Parameters
    ----------
    value : what the activation is set to.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    screen : with a share below 1, only this share of each prompt's neurons is evaluated: those with the largest
        first-order estimate ``|(a_i − value) · ∂F/∂a_i|``. The others score 0, as if they had no effect.
    max_rows : most neurons taken up at a time; memory is kept by the model's budget.

    Raises
    ------
    MethodError : the screen is not a share above 0 and up to 1.

    Reference
    ---------
    Morcos et al. 2018, arXiv 1803.06959.
    """

    value: float = 0.0
    objective: Objective = "prob"
    screen: float = 1.0
    max_rows: int = 4096
    reference: ClassVar[str] = "Morcos et al. 2018, arXiv 1803.06959"
    any_length: ClassVar[bool] = True
    cheaper: ClassVar[str] = "ablation(screen=0.05) evaluates the 5 % with the largest first-order estimates."

    def __post_init__(self) -> None:
        if not 0 < self.screen <= 1:
            raise MethodError(f"ablation: screen is {self.screen}; expected a share of the neurons, above 0, up to 1.")

    def rows_per_prompt(self, model: NeuronModel) -> int:
        """One for each neuron that is evaluated."""
        return round(self.screen * model.n_layers * model.n_neurons)

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        # A difference of probabilities near 1 would lose its digits; between log-odds it keeps them.
        logs = self.objective in ("prob", "logprob")
        function = objective_function(model, batch, "logodds" if logs else self.objective)
        activations, clean = function.activations, function.clean()
        scores = torch.zeros_like(activations, dtype=clean.dtype)
        for where in self._candidates(function).split(self.max_rows):
            prompts, layers, neurons = where.unbind(1)
            rows = activations[prompts, layers]
            rows[torch.arange(len(rows), device=rows.device), neurons] = self.value
            with torch.no_grad():
                changed = function(rows, layers, prompts)
            scores[prompts, layers, neurons] = difference(clean[prompts], changed, self.objective)
        return scores

    def _candidates(self, function: RowObjective) -> Tensor:
        """Indices ``[candidate, (prompt, layer, neuron)]`` of the neurons to evaluate, sorted by layer."""
        activations = function.activations
        wanted = activations != self.value
        if self.screen < 1:
            rows = Rows.of(activations)
            _, slopes = function.evaluate(rows.activations, rows.layers, rows.prompts, gradient=True)
            assert slopes is not None
            estimate = ((rows.activations - self.value) * slopes).abs().view(len(activations), -1)
            best = estimate.topk(max(1, round(self.screen * estimate.shape[1]))).indices
            wanted &= torch.zeros_like(estimate, dtype=torch.bool).scatter(1, best, True).view(wanted.shape)
        where = wanted.nonzero()
        # Rows of the same layers share a pass, and a pass begins at its first layer.
        return where[where[:, 1].argsort(stable=True)]


def difference(clean: Tensor, changed: Tensor, objective: Objective) -> Tensor:
    """Objective before minus after; for ``prob`` and ``logprob`` from log-odds ``o`` without cancellation.

    ``σ(o) − σ(o') = −σ(o) · σ(−o') · (exp(o' − o) − 1)``, taken in the order in which the exponent is negative.
    """
    if objective == "prob":
        high, low = torch.maximum(clean, changed), torch.minimum(clean, changed)
        return -(clean - changed).sign() * high.sigmoid() * (-low).sigmoid() * (low - high).expm1()
    if objective == "logprob":
        return softplus(-changed) - softplus(-clean)
    return clean - changed
