"""Probeless: neurons whose mean activation differs between classes of prompts, without training a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.errors import MethodError, unknown
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.contrast_pool import LABELS, Label, Pool
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import FactScorer

PAIRS = ("all", "own")


@register("probeless")
@dataclass(frozen=True)
class Probeless(FactScorer):
    """How far a neuron's mean activations in different classes of prompts lie apart.

    ``score_i = Σ over pairs of classes |mean_c(a_i) − mean_c'(a_i)|``, activations at the answer position. With two
    classes (this fact's prompts, and those of facts with another answer and another subject) that is one pair. Never
    looks at what the neuron does: a neuron that only notices the fact scores as high as one that tells it, and neurons
    with large activations are favoured. One forward pass per prompt, those of the contrast included.

    Parameters
    ----------
    label : what makes the classes: ``"fact"`` (this fact, or not) or ``"answer"`` (the answers of its relation).
    pairs : with ``label="answer"``, ``"all"`` pairs of classes (the same scores for all facts of a relation) or its
        ``"own"``, those that the fact's answer is in. With two classes there is no difference.

    Raises
    ------
    MethodError : an unknown label or kind of pairs, or a fact without any to compare it with.

    Reference
    ---------
    Antverg and Belinkov 2022, arXiv 2110.07483.
    """

    label: Label = "fact"
    pairs: str = "all"
    reference: ClassVar[str] = "Antverg and Belinkov 2022, arXiv 2110.07483"

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise MethodError(f"probeless: {unknown('label', self.label, LABELS)}")
        if self.pairs not in PAIRS:
            raise MethodError(f"probeless: {unknown('pairs', self.pairs, PAIRS)}")

    @override
    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        """Distances of the classes' means: fact id -> ``[layer, neuron]``."""
        scores = {}
        for fact in pool.facts:
            classes = pool.classes(fact, self.label)
            means = torch.stack([pool.activations[indices].mean(0) for indices in classes.values()])
            if self.pairs == "own":
                own = list(classes).index(fact.id if self.label == "fact" else fact.answer)
                scores[fact.id] = (means - means[own]).abs().sum(0)
            else:
                # In order of size, the i-th of n numbers is the larger one in i pairs and the smaller one in the rest.
                order = torch.arange(len(means), dtype=means.dtype, device=means.device)
                scores[fact.id] = torch.einsum("cln,c->ln", means.sort(0).values, 2 * order - len(means) + 1)
        return scores
