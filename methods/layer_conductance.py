"""Layer conductance: how much of the integrated gradient of the input embeddings flows through a neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.answers import Objective
from kn_attrib.models.head import at_least_float32
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Attribution, Scorer
from kn_attrib.techniques.adaptive_quadrature import Grading
from kn_attrib.techniques.embedding_paths import along_embeddings, batch_parts
from kn_attrib.techniques.layer_integrals import TOLERANCE
from kn_attrib.techniques.stieltjes import StieltjesIntegral, integrate_along

START = 0.001
CROWDING = 0.03
"""Points crowd below this share of the embeddings, where norms without a shift make states change fast."""


@register("layer_conductance", "layer_integrated_conductance")
@dataclass(frozen=True)
class LayerConductance(Scorer):
    """Conductance of each neuron along the straight line from (nearly) zero input embeddings.

    ``score_i = ∫ ∂F/∂h_i · dh_i``, where ``h`` runs along the curve that the straight interpolation of all input
    embeddings induces at the layer, read at the answer position. *Not* complete for a feed-forward block in a
    residual network (the residual stream carries the rest), so no completeness gap is reported.

    The line begins at a thousandth of the embeddings. Zero itself is no usable end in models that normalise without a
    shift (RMSNorm, as in Llama): there each norm has a slope of ``1/√ε``, 30 of them one of 10³⁰, and Captum's sum,
    which takes the gradient at zero times the whole first step, is noise (preset ``captum``; on SmolLM2 its scores are
    of length 10³⁰ where the integral's is 0.5). For models with position embeddings the two beginnings agree.

    Parameters
    ----------
    steps : number of equal steps of Captum's sum, ``Σ_k ∂F/∂h(α_k) · (h(α_{k+1}) − h(α_k))``; 0 for extrapolated
        trapezoid sums of 16 steps, bisected where nested sums differ.
    tolerance : largest error of a layer's scores that is accepted where steps is 0, by its own estimate: Euclidean
        length, as a share of the scores of the prompt's strongest layer. What has not reached it after 256 points is
        left as it is; the scores say so (``NeuronScores.capped``, ``NeuronScores.error``).
    start : where the line begins, as a share of the embeddings.
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.
    max_rows : most rows (prompts × points) in one forward and backward.

    Raises
    ------
    MethodError : steps is negative, start is not in [0, 1), or the tolerance is not positive.

    Reference
    ---------
    Dhamdhere et al. 2018, arXiv 1805.12233; Captum ``LayerConductance`` (preset ``captum``).
    """

    steps: int = 0
    tolerance: float = TOLERANCE
    start: float = START
    objective: Objective = "prob"
    max_rows: int = 512
    presets: ClassVar[dict[str, dict[str, Any]]] = {"captum": {"steps": 20, "start": 0.0}}
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Dhamdhere et al. 2018, arXiv 1805.12233"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise MethodError(f"layer_conductance: steps is {self.steps}; expected 0 (as many as needed) or more.")
        if not 0 <= self.start < 1:
            raise MethodError(f"layer_conductance: start is {self.start}; expected a share from 0 to below 1.")
        if not self.tolerance > 0:
            raise MethodError(f"layer_conductance: tolerance is {self.tolerance}; expected a positive share.")
        if self.steps and self.tolerance != TOLERANCE:
            raise MethodError(
                f"layer_conductance: tolerance is {self.tolerance}, which nothing asks for with steps={self.steps}; "
                "leave out one of them."
            )

    def score(self, model: NeuronModel, batch: Batch) -> Tensor | Attribution:
        if self.steps:
            parts = batch_parts(batch, self.max_rows, self.steps + 1)
            return torch.cat([self._captums(model, part) for part in parts])
        found = [self._conductance(model, Batch((prompt,), batch.device)) for prompt in batch.prompts]
        values, error, capped = (torch.stack([getattr(each, name) for each in found]) for name in _RESULT)
        return Attribution(values, error=error, capped=capped)

    def _captums(self, model: NeuronModel, batch: Batch) -> Tensor:
        """What Captum's `LayerConductance` gives for each layer, from one pass for all of them."""
        # Captum ignores quadrature weights here: it adds up dh between points, so equal steps are the right ones.
        points = torch.linspace(self.start, 1, self.steps + 1, dtype=torch.float64).tolist()
        line = along_embeddings(model, batch, self.objective, points)
        return (line.gradients[:-1] * line.states.diff(dim=0)).sum(0)

    def _conductance(self, model: NeuronModel, prompt: Batch) -> StieltjesIntegral:
        """The integral, with as many points as it needs."""
        scale = torch.tensor([CROWDING], dtype=torch.float64)
        first = torch.asinh(self.start / scale) / torch.asinh(1 / scale)

        def curves(at: Tensor) -> tuple[Tensor, Tensor]:
            points, _ = Grading(scale).places(torch.zeros_like(at, dtype=torch.long), first + (1 - first) * at)
            parts = points.split(max(1, self.max_rows))
            lines = [along_embeddings(model, prompt, self.objective, part.tolist()) for part in parts]
            slopes = torch.cat([line.gradients[:, 0] for line in lines])
            return at_least_float32(slopes), at_least_float32(torch.cat([line.states[:, 0] for line in lines]))

        return integrate_along(curves, self.tolerance)


_RESULT = ("sums", "error", "capped")
