"""Fine-tuning of one layer's output matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.editing.changes import Change
from kn_attrib.editing.edit import Edit, wanted_queries
from kn_attrib.editing.editor import Editor
from kn_attrib.editing.learnt_vectors import Learning, learnt_vectors
from kn_attrib.editing.neuron_editor import value_changes
from kn_attrib.editing.registry import register_editor
from kn_attrib.editing.weight_delta import check_alone
from kn_attrib.errors import ConfigError, check_kinds
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet


@register_editor("fine_tune")
@dataclass(frozen=True)
class FineTune(Editor):
    """One layer's output matrix fine-tuned on the edit's texts by Adam, each of its numbers held in bounds if asked.

    Minimises the mean over texts of the mean over the target's tokens of −log p(token | tokens before), without weight
    decay.

    Differs from the published code: all tokens of a target are learnt, each behind the ones before it (there all are
    learnt in the place of the first one); the matrix alone is changed, not the bias beside it.

    Parameters
    ----------
    layer : whose output matrix is changed. The published one: 1 of gpt2-xl's 48, and 0 with bounds.
    steps : most steps of Adam.
    rate : of Adam.
    limit : most that a number of the matrix may move; None for any.
    stop : stop below this mean −log p, in nats.

    Reference
    ---------
    The baseline of Meng et al. 2022, arXiv 2202.05262; bounds after Zhu et al. 2020, arXiv 2012.00363.
    """

    layer: int
    steps: int = 25
    rate: float = 5e-4
    limit: float | None = None
    stop: float = 0.01
    reference: ClassVar[str] = "the baseline of Meng et al. 2022, arXiv 2202.05262"

    def __post_init__(self) -> None:
        check_kinds(self, self.name)
        for name in ("steps", "rate", "limit"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{self.name}: {name} is {value}; expected more than 0.")

    @override
    def changes(self, model: NeuronModel, edit: Edit) -> Sequence[Change]:
        """What is added to the value vectors of all neurons that were active somewhere in the texts.

        Raises
        ------
        NeuronError : the model has no such layer.
        EditError : its layers share weights.
        """
        width = len(model.value_vectors(self.layer))
        check_alone(model, self.layer)
        neurons = NeuronSet((self.layer, i) for i in range(width))
        wide = torch.promote_types(model.dtype, torch.float32)
        ones = torch.ones(width, 1, dtype=wide, device=model.device)
        learning = Learning(self.steps, self.rate, self.stop, self._bounded)
        added = learnt_vectors(model, wanted_queries(model, edit), neurons, ones, learning)
        moved = NeuronSet((self.layer, i) for i in added.any(-1).nonzero()[:, 0].tolist())
        return value_changes(moved, added[added.any(-1)])

    def _bounded(self, added: Tensor) -> Tensor:
        return added if self.limit is None else added.clamp(-self.limit, self.limit)
