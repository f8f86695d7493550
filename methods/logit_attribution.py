"""Direct logit attribution: what each neuron writes in the direction of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.techniques.residual_stream import follow


@register("logit_attribution")
@dataclass(frozen=True)
class LogitAttribution(Scorer):
    """What the neuron adds to the answer's logit along the residual stream alone.

    ``score_i = a_i · v_i · (γ ⊙ U_y) / σ``, with σ (and the mean, if the norm removes one) of the final norm as they
    are on this prompt. The norm between a feed-forward block and the stream (Gemma 2, OLMo 2) and, in post-norm models
    (BERT), every norm that the stream passes are held fixed in the same way; a transform between the last block and
    the unembedding (BERT's dense layer and GELU) or a soft cap of the logits (Gemma 2) is replaced by its derivative.
    Misses everything that the neuron does through later blocks. One forward and one backward pass per prompt.

    Parameters
    ----------
    centred : take the answer's unembedding row minus the vocabulary's mean row: what raises all logits counts nothing.

    Raises
    ------
    MethodError : the model's residual stream cannot be followed (no list of blocks, or a norm of an unknown kind).

    Reference
    ---------
    Geva et al. 2022, arXiv 2203.14680; Elhage et al. 2021, direct logit attribution.
    """

    centred: bool = False
    neurons_only: ClassVar[bool] = True
    reference: ClassVar[str] = "Geva et al. 2022, arXiv 2203.14680"

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        stream = follow(model, batch)
        logits = model.head.gold(stream.final, batch.answers).logit
        if self.centred:
            logits = logits - model.head.mean_logit(stream.final)
        effects = stream.effects(logits.sum())
        scores = [
            stream.activations[layer].detach() * (effect @ model.value_vectors(layer).T)
            for layer, effect in enumerate(effects)
        ]
        return torch.stack(scores, dim=1)
