"""Integrated gradients averaged over baselines in which one input token is masked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.forward.row_objective import RowObjective, objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Attribution, Scorer
from kn_attrib.techniques.path_integrals import integrate


@register("multi_baseline_ig")
@dataclass(frozen=True)
class MultiBaselineIG(Scorer):
    """Integrated gradients from the activations that the prompt has with one token masked, averaged over the tokens.

    ``score_i = mean over j of (a_i − a'_ji) · ∫₀¹ ∂f_l(a'_j + α(a − a'_j))/∂w_i dα``, ``a'_j`` the activation with
    input token ``j`` masked (masked models: by the mask; others: by the unknown, padding or end token, the first that
    there is). Special tokens, the answer position and what a decoder starts from stay. Complete: a layer's scores add
    up to ``f_l(a) − mean over j of f_l(a'_j)``; gap and difference are returned with the scores. A baseline close to
    the prompt keeps the path near what the model has seen; neurons that react to no single token score nothing. Cost:
    ``steps + 1`` forwards and ``steps`` backwards per layer and token.

    Parameters
    ----------
    steps : number of Gauss-Legendre nodes on each path.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.

    Raises
    ------
    MethodError : steps is below 1, or the tokenizer has no token to mask with.

    Reference
    ---------
    After Chen et al. 2024, arXiv 2308.13198 (AMIG; its public code leaves out the factor ``a − a'_j``, and with it
    completeness).
    """

    steps: int = 6
    objective: Objective = "prob"
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "after Chen et al. 2024, arXiv 2308.13198"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"multi_baseline_ig: steps is {self.steps}; expected at least 1.")

    def score(self, model: NeuronModel, batch: Batch) -> Attribution:
        function = objective_function(model, batch, self.objective)
        found = [self._of_prompt(model, function, prompt, row) for row, prompt in enumerate(batch.prompts)]
        values = torch.stack([scores for scores, _ in found])
        differences = torch.stack([difference for _, difference in found])
        return Attribution(values, values.sum(-1) - differences, differences)

    def _of_prompt(self, model: NeuronModel, function: RowObjective, prompt: Prompt, row: int) -> tuple[Tensor, Tensor]:
        """Scores ``[layer, neuron]`` and what they should add up to, ``[layer]``."""
        masked = Batch(tuple(_masked(model, prompt)), model.device)
        baselines = model.record(masked).flatten(0, 1)
        n = len(masked)
        layers = torch.arange(model.n_layers, device=model.device).repeat(n)
        prompts = torch.full_like(layers, row)
        rows = Rows(function.activations[row].repeat(n, 1), layers, prompts)
        scores, _ = integrate(function, rows, "gausslegendre", self.steps, baselines=baselines)
        with torch.no_grad():
            before = function(baselines, layers, prompts)
        differences = function.clean()[row] - before
        return scores.view(n, model.n_layers, -1).mean(0), differences.view(n, -1).mean(0)


def _masked(model: NeuronModel, prompt: Prompt) -> list[Prompt]:
    """The prompt with one token masked, for each token that may be."""
    tokenizer = model.tokenizer
    candidates = (getattr(tokenizer, f"{name}_token_id", None) for name in ("mask", "unk", "pad", "eos"))
    filler = next((token for token in candidates if token is not None), None)
    if filler is None:
        raise MethodError(f"multi_baseline_ig: the tokenizer of {model.name} has no token to mask with.")
    ids = prompt.source or prompt.input_ids
    keep = set(tokenizer.all_special_ids) | {filler}
    # What an encoder-decoder answers at lies in the other stack.
    fixed = () if prompt.source else (prompt.position,)
    places = [i for i, token in enumerate(ids) if token not in keep and i not in fixed]
    if not places:
        places = list(range(len(ids)))
    texts = [(*ids[:i], filler, *ids[i + 1 :]) for i in places]
    return [replace(prompt, source=text) if prompt.source else replace(prompt, input_ids=text) for text in texts]
