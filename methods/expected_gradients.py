"""Expected gradients: integrated gradients from the activations of other facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import ContrastScorer


@register("expected_gradients")
@dataclass(frozen=True)
class ExpectedGradients(ContrastScorer):
    """Integrated gradients from where other facts' prompts put the neurons, not from zero.

    ``score_i = E over a' ~ D, α ~ U(0, 1) of (a_i − a'_i) · ∂f_l(a' + α(a − a'))/∂w_i``, one layer at a time, ``D`` the
    activations at the answer position of other facts' prompts (another answer and another subject). What all prompts
    share scores nothing, so neurons of the template drop out; what is drawn is a sample, and with few draws the scores
    are noisy and add up to ``f_l(a) − E f_l(a')`` only roughly. Cost: ``samples`` forwards and backwards per layer.

    Parameters
    ----------
    samples : number of pairs of a baseline and an α; the αs are drawn one from each of as many equal parts of (0, 1).
    same_relation : baselines from the fact's own relation alone, where it has other facts.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    seed : of the draws, which depend on the fact and its text.

    Raises
    ------
    MethodError : samples is below 1, or there is no other fact.

    Reference
    ---------
    Erion et al. 2021, arXiv 1906.10670; Captum ``GradientShap``.
    """

    samples: int = 16
    same_relation: bool = False
    objective: Objective = "prob"
    seed: int = 0
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Erion et al. 2021, arXiv 1906.10670"
    any_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise MethodError(f"expected_gradients: samples is {self.samples}; expected at least 1.")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        function = objective_function(model, batch, self.objective)
        activations = function.activations
        layers = torch.arange(model.n_layers, device=activations.device).repeat(len(batch))
        prompts = torch.arange(len(batch), device=activations.device).repeat_interleave(model.n_layers)
        total = torch.zeros_like(activations)
        draws = [self._draws(prompt) for prompt in batch.prompts]
        for sample in range(self.samples):
            baselines = torch.stack([self.pool.activations[chosen[sample]] for chosen, _ in draws])
            alphas = torch.tensor([float(alpha[sample]) for _, alpha in draws]).to(activations)[:, None, None]
            away = activations - baselines
            rows = (baselines + alphas * away).flatten(0, 1)
            _, slopes = function.evaluate(rows, layers, prompts, gradient=True)
            assert slopes is not None
            total += away * slopes.view_as(away)
        return total / self.samples

    def _draws(self, prompt: Prompt) -> tuple[list[int], Tensor]:
        """Indices into the pool and positions on the path: ``samples`` of each."""
        others = self.pool.contrast(prompt.fact, True) if self.same_relation else []
        others = others or self.pool.contrast(prompt.fact)
        if not others:
            raise MethodError(
                f"expected_gradients: there is no other fact to compare {prompt.fact.id!r} with; give contrast facts."
            )
        # In an order of their own, so that the draw does not depend on which facts came first.
        others = sorted(others, key=lambda i: self._content(self.pool.queries[i]))
        generator = torch_generator(self.seed, prompt.fact.id, prompt.text, prompt.token)
        chosen = torch.randint(len(others), (self.samples,), generator=generator)
        inside = torch.rand(self.samples, generator=generator, dtype=torch.float64)
        alphas = (torch.arange(self.samples) + inside) / self.samples
        return [others[i] for i in chosen.tolist()], alphas

    @staticmethod
    def _content(query: Prompt) -> tuple[str, str, int]:
        return query.fact.id, query.text, query.token
