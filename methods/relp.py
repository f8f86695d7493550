"""RelP: gradient times activation with a backward pass that follows relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import make_scorer, register
from kn_attrib.scoring.scorer import Attribution, Scorer
from kn_attrib.techniques.gradient_rules import relevance_rules


@register("relp")
@dataclass(frozen=True)
class RelP(Scorer):
    """Gradient times activation, the gradient taken by the rules of layer-wise relevance propagation.

    ``score_i = a_i · ∂̃F/∂a_i``, where the backward pass holds norm denominators fixed, takes ``f(z)/z`` for the
    derivative of an activation function, gives half to each branch of a gate, and holds attention patterns fixed. The
    forward pass is untouched. Noise from the curvature of norms and activations is left out, so that the scores follow
    what is passed on rather than what would change; like `gradient_x_activation`, to which it is equal in a network
    without norms and nonlinearities, it misses saturation of the probability. Cost: one forward, one backward.

    Parameters
    ----------
    norms : hold the denominators of layer and RMS norms fixed.
    activations : ``f(z)/z`` for derivatives of activation functions.
    gates : half to each branch of a gated feed-forward block.
    attention : hold attention patterns fixed.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.

    Raises
    ------
    MethodError : a norm of the model is neither a layer norm nor an RMS norm.

    Reference
    ---------
    Jafari et al. 2025, arXiv 2508.21258, after Achtibat et al. 2024, arXiv 2402.05602.
    """

    norms: bool = True
    activations: bool = True
    gates: bool = True
    attention: bool = True
    objective: Objective = "logit"
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Jafari et al. 2025, arXiv 2508.21258"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        base = make_scorer(f"gradient_x_activation(objective={self.objective!r})")
        with relevance_rules(
            model, norms=self.norms, activations=self.activations, gates=self.gates, attention=self.attention
        ):
            found = base.score(model, batch)
        if isinstance(found, Attribution):
            raise MethodError("relp: gradient_x_activation returned a gap; expected scores alone.")
        return found
