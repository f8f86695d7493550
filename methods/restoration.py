"""Restoration: how much of the answer comes back when one neuron is restored in a corrupted run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.interventions.subject_noise import EmbeddedBatch, subject_spans, with_noise
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer


@register("restoration")
@dataclass(frozen=True)
class Restoration(Scorer):
    """Causal mediation: the answer's recovery when the neuron alone is what it was, in a run with a corrupted subject.

    ``score_i = mean over draws of f̃_l(ã with ã_i := a_i) − f̃_l(ã)`` at the answer position; tildes mark the run whose
    subject's embeddings carry Gaussian noise, different in each draw. What only many neurons together bring back is
    missed, and so is all that reaches the answer position other than through it. Exact for every neuron it would be
    ``draws`` times as dear as exact ablation, so by default only a screened share of the neurons is evaluated. Per
    prompt and draw: one corrupted forward pass, with a screen another one and one forward and backward per layer from
    that layer on, and one forward from its layer on per neuron evaluated.

    Parameters
    ----------
    sigma : standard deviation of the noise, in standard deviations of the embedding matrix.
    draws : number of corrupted runs.
    screen : with a share below 1, only this share of each prompt's neurons is evaluated: those with the largest
        first-order estimate ``|mean over draws of (a_i − ã_i) · ∂f̃_l(ã)/∂ã_i|``. The others score 0, as if they
        brought nothing back. 1 evaluates every neuron.
    seed : the seed of the noise, which also depends on fact and text.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    max_rows : most neurons taken up at a time; memory is kept by the model's budget.

    Raises
    ------
    MethodError : a number is out of range, or a text does not hold its fact's subject word for word.

    Reference
    ---------
    Vig et al. 2020, arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262 (there whole states, over a window of layers).
    """

    sigma: float = 3.0
    draws: int = 10
    screen: float = 0.05
    seed: int = 0
    objective: Objective = "prob"
    max_rows: int = 4096
    neurons_only: ClassVar[bool] = True
    cheaper: ClassVar[str] = "restoration(draws=3, screen=0.01) takes 17 times fewer."
    reference: ClassVar[str] = "Vig et al. 2020, arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262"

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise MethodError(f"restoration: sigma is {self.sigma}; expected a positive number of standard deviations.")
        if self.draws < 1:
            raise MethodError(f"restoration: draws is {self.draws}; expected at least 1.")
        if not 0 < self.screen <= 1:
            raise MethodError(f"restoration: screen is {self.screen}; expected a share of the neurons, above 0, to 1.")

    def rows_per_prompt(self, model: NeuronModel) -> int:
        """One for each draw and neuron that is evaluated."""
        return round(self.draws * self.screen * model.n_layers * model.n_neurons)

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        spans = subject_spans(model, batch)
        clean = model.record(batch)

        def corrupted(draw: int) -> EmbeddedBatch:
            return with_noise(model, batch, spans, self.sigma, self.seed, draw)

        wanted = torch.ones_like(clean, dtype=torch.bool)
        if self.screen < 1:
            estimates = [self._estimate(model, corrupted(draw), clean) for draw in range(self.draws)]
            best = torch.stack(estimates).mean(0).abs().flatten(1)
            chosen = best.topk(max(1, round(self.screen * best.shape[1]))).indices
            wanted = torch.zeros_like(best, dtype=torch.bool).scatter(1, chosen, True).view(clean.shape)
        recoveries = [self._recovery(model, corrupted(draw), clean, wanted) for draw in range(self.draws)]
        return torch.stack(recoveries).mean(0)

    def _estimate(self, model: NeuronModel, corrupted: EmbeddedBatch, clean: Tensor) -> Tensor:
        """``(a − ã) · ∂f̃/∂ã``, ``[prompt, layer, neuron]``."""
        function = objective_function(model, corrupted, self.objective)
        rows = Rows.of(function.activations)
        _, slopes = function.evaluate(rows.activations, rows.layers, rows.prompts, gradient=True)
        assert slopes is not None
        return (clean - function.activations) * slopes.view(clean.shape)

    def _recovery(self, model: NeuronModel, corrupted: EmbeddedBatch, clean: Tensor, wanted: Tensor) -> Tensor:
        """What restoring each of the wanted neurons alone brings back, ``[prompt, layer, neuron]``."""
        function = objective_function(model, corrupted, self.objective)
        activations, before = function.activations, function.clean()
        scores = torch.zeros_like(activations, dtype=before.dtype)
        where = (wanted & (activations != clean)).nonzero()
        # Rows of the same layers share a pass, and a pass begins at its first layer.
        by_layer = where[where[:, 1].argsort(stable=True)]
        for part in by_layer.split(self.max_rows):
            prompts, layers, neurons = part.unbind(1)
            rows = activations[prompts, layers]
            rows[torch.arange(len(rows), device=rows.device), neurons] = clean[prompts, layers, neurons]
            with torch.no_grad():
                scores[prompts, layers, neurons] = function(rows, layers, prompts) - before[prompts]
        return scores
