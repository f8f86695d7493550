"""Layer integrated gradients: straight line between the layer's activations of two inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from captum import attr
from torch import Tensor, nn

from kn_attrib.errors import MethodError, unknown
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.all_tokens import at_answer, record_all
from kn_attrib.forward.embeddings import EmbeddingObjective
from kn_attrib.forward.guards import whole_wave_or_none
from kn_attrib.forward.row_objective import RowObjective
from kn_attrib.forward.rows import Rows
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Attribution, Scorer

BASELINES = ("zero", "pad", "mask")


@register("layer_integrated_gradients")
@dataclass(frozen=True)
class LayerIntegratedGradients(Scorer):
    """Integrated gradients between the layer's activations of the prompt and of a baseline input.

    ``score = (h(x) − h(x')) · ∫₀¹ ∂F/∂h dα`` on the straight line between the layer's activations at *all* tokens,
    read at the answer position. Its sum over all tokens is ``F(x) − F(x; h = h(x'))`` (not ``F(x) − F(x')``, which
    Captum's own convergence delta assumes); gap and difference are returned with the scores.

    Parameters
    ----------
    steps : number of Gauss-Legendre nodes.
    baseline : the baseline input: ``"zero"`` embeddings, all ``"pad"`` or all ``"mask"`` tokens.
    objective : ``"prob"``, ``"logprob"`` or ``"logit"``.
    max_rows : most rows (prompts × nodes) in one forward and backward.

    Raises
    ------
    MethodError : unknown baseline, or the tokenizer has no such token.

    Reference
    ---------
    Sundararajan et al. 2017, arXiv 1703.01365; Captum ``LayerIntegratedGradients``.
    """

    steps: int = 16
    baseline: str = "zero"
    objective: Objective = "prob"
    max_rows: int = 512
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise MethodError(f"layer_integrated_gradients: {unknown('baseline', self.baseline, BASELINES)}")

    def score(self, model: NeuronModel, batch: Batch) -> Attribution:
        baseline = self._baseline(model, batch)
        wave = whole_wave_or_none(model, batch, self.objective)
        if wave is None:
            return self._by_layer(model, batch, baseline)
        function = RowObjective(wave, model.execution.row_budget(model.device))
        ends = Rows.of(record_all(model, batch.positions, **batch.inputs()))
        starts = record_all(model, batch.positions, inputs_embeds=baseline).flatten(0, 1)
        found = [self._rows(function, rows, starts[part]) for part, rows in self._parts(ends)]
        return _joined(found, batch, model.n_layers)

    def _parts(self, rows: Rows) -> list[tuple[slice, Rows]]:
        size = max(1, self.max_rows // self.steps)
        parts = [slice(start, start + size) for start in range(0, len(rows), size)]
        return [(part, rows[part]) for part in parts]

    def _rows(self, function: RowObjective, rows: Rows, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores ``[row, neuron]`` at the answer, their sum over all tokens, and what it should be."""
        full: Tensor = attr.IntegratedGradients(function).attribute(
            rows.activations, starts, additional_forward_args=(rows.layers, rows.prompts), n_steps=self.steps
        )
        removed, _ = function.evaluate(starts, rows.layers, rows.prompts, gradient=False)
        full = full.detach()
        at = function.forward.batch.positions[rows.prompts]
        own = full[torch.arange(len(rows), device=at.device), at]
        total = full.flatten(1).sum(1)
        difference = function.clean()[rows.prompts] - removed
        return own, total, difference

    def _by_layer(self, model: NeuronModel, batch: Batch, baseline: Tensor) -> Attribution:
        """Captum's own method, layer by layer, each from the embeddings: for models that no wave runs through."""
        forward = EmbeddingObjective(model, self.objective)
        inputs = model.embed(batch)
        where = batch.where
        with torch.no_grad():
            clean = forward(inputs, *where)
        scores, sums, differences = [], [], []
        for layer, site in enumerate(model.hook_points):
            full = self._layer(forward, site, inputs, baseline, where)
            scores.append(at_answer(full, batch))
            sums.append(full.flatten(1).sum(1))
            differences.append(clean - _replaced(forward, layer, inputs, baseline, where))
        difference = torch.stack(differences, 1)
        return Attribution(torch.stack(scores, 1), torch.stack(sums, 1) - difference, difference)

    def _layer(
        self, forward: EmbeddingObjective, site: nn.Module, inputs: Tensor, baseline: Tensor, where: tuple[Tensor, ...]
    ) -> Tensor:
        full: Tensor = attr.LayerIntegratedGradients(forward, site).attribute(
            inputs,
            baselines=baseline,
            additional_forward_args=where,
            n_steps=self.steps,
            internal_batch_size=max(self.max_rows, len(inputs)),
            attribute_to_layer_input=True,
        )
        return full.detach()

    def _baseline(self, model: NeuronModel, batch: Batch) -> Tensor:
        if self.baseline == "zero":
            return torch.zeros_like(model.embed(batch))
        token = getattr(model.tokenizer, f"{self.baseline}_token_id")
        if token is None:
            raise MethodError(
                f"layer_integrated_gradients: the tokenizer of {model.name} has no {self.baseline} token; "
                "use baseline='zero'."
            )
        embedding = model.model.get_input_embeddings()
        with torch.no_grad():
            vectors: Tensor = embedding(torch.full_like(batch.input_ids, token))
        return vectors


def _joined(found: Sequence[tuple[Tensor, Tensor, Tensor]], batch: Batch, n_layers: int) -> Attribution:
    """Scores, sums and differences of consecutive rows as one batch's."""
    joined = [torch.cat(parts).unflatten(0, (len(batch), n_layers)) for parts in zip(*found, strict=True)]
    scores, sums, differences = joined
    return Attribution(scores, sums - differences, differences)


def _replaced(
    forward: EmbeddingObjective, layer: int, inputs: Tensor, baseline: Tensor, where: tuple[Tensor, ...]
) -> Tensor:
    """``F(x; h = h(x'))``: the objective with the layer's activations at all tokens taken from the baseline."""
    recorded: list[Tensor] = []

    def keep(vectors: Tensor) -> Tensor:
        recorded.append(vectors)
        return vectors

    def put(_: Tensor) -> Tensor:
        return recorded[0]

    with torch.no_grad():
        with forward.model.edited({layer: keep}):
            forward(baseline, *where)
        with forward.model.edited({layer: put}):
            return forward(inputs, *where)
