"""Attribution patching: a linear estimate of swapping in the activations of a corrupted prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from captum import attr
from torch import Tensor

from kn_attrib.errors import MethodError, PromptError
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.forward.all_tokens import at_answer
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import ContrastScorer
from kn_attrib.techniques.gradient_rules import without_ffn_gradient


@register("attribution_patching")
@dataclass(frozen=True)
class AttributionPatching(ContrastScorer):
    """First-order estimate of putting in the activation that the prompt has with another subject.

    ``score_i = (a_i − ã_i) · ∂F/∂a_i``, ``ã`` the activation at the answer position of the same text about another
    subject, averaged over a few of them. Keeps what depends on the subject and drops what the template alone causes.
    Shares the blindness of `gradient_x_activation` for saturated answers; ``graddrop`` mends the cancellation of
    effects along different ways through the model, not saturation: the gradient is taken as often as there are
    layers, each time not passing through one layer's feed-forward block, and absolute scores are averaged. Cost: one
    forward and one backward (with ``graddrop`` one each per layer) and ``foils`` forwards.

    Parameters
    ----------
    foils : number of other subjects, of the same relation where there are any, else of others.
    graddrop : average absolute scores over gradients that leave out one feed-forward block each.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    seed : of the choice of subjects, which depends on the fact.

    Raises
    ------
    MethodError : foils is below 1, a text does not hold its subject, or there is no other subject.

    Reference
    ---------
    Nanda 2023, *Attribution patching*; Kramár et al. 2024, arXiv 2403.00745 (AtP*, GradDrop).
    """

    foils: int = 2
    graddrop: bool = False
    objective: Objective = "prob"
    seed: int = 0
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Kramár et al. 2024, arXiv 2403.00745"

    def __post_init__(self) -> None:
        if self.foils < 1:
            raise MethodError(f"attribution_patching: foils is {self.foils}; expected at least 1.")

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        corrupted = torch.stack([self._corrupted(model, prompt) for prompt in batch.prompts])
        away = model.record(batch) - corrupted
        if not self.graddrop:
            return away * self._gradient(model, batch)
        total = torch.zeros_like(away)
        for layer in range(model.n_layers):
            with without_ffn_gradient(model, layer):
                total += (away * self._gradient(model, batch)).abs()
        # In each layer's own turn its neurons have no gradient.
        return total / max(1, model.n_layers - 1)

    def _gradient(self, model: NeuronModel, batch: Batch) -> Tensor:
        forward = EmbeddingObjective(model, self.objective)
        captum = attr.LayerGradientXActivation(forward, model.hook_points, multiply_by_inputs=False)
        layers = captum.attribute(
            model.embed(batch), additional_forward_args=batch.where, attribute_to_layer_input=True
        )
        return torch.stack([at_answer(layer, batch).detach() for layer in layers], dim=1)

    def _corrupted(self, model: NeuronModel, prompt: Prompt) -> Tensor:
        """Mean activation over the corrupted prompts: ``[layer, neuron]``."""
        if prompt.fact.subject not in prompt.text:
            raise MethodError(
                f"attribution_patching: {prompt.text!r} does not hold the subject {prompt.fact.subject!r} of "
                f"{prompt.fact.id!r}, so it cannot be put about another one."
            )
        found = []
        for subject in self._subjects(prompt.fact):
            text = prompt.text.replace(prompt.fact.subject, subject)
            other = Fact(prompt.fact.id, prompt.fact.relation, subject, prompt.fact.answer, (text,))
            try:
                query = model.encoder.encode(other, text)[prompt.token]
            except (PromptError, IndexError):  # another subject may not fit into the model
                continue
            _, batch = next(iter(model.batches([replace(query, fact=prompt.fact)])))
            found.append(model.record(batch)[0])
        if not found:
            raise MethodError(
                f"attribution_patching: there is no other subject to put into the texts of {prompt.fact.id!r}; "
                "give contrast facts."
            )
        return torch.stack(found).mean(0)

    def _subjects(self, fact: Fact) -> list[str]:
        """Other subjects, in an order that depends on the seed and the fact alone."""
        for same_relation in (True, None):
            others = {self.pool.queries[i].fact.subject for i in self.pool.contrast(fact, same_relation)}
            if others:
                names = sorted(others)
                order = torch.randperm(len(names), generator=torch_generator(self.seed, fact.id)).tolist()
                return [names[i] for i in order[: self.foils]]
        return []
