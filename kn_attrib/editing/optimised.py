"""Value vectors of a few neurons learnt by gradient: what an edit of that size could reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.editing.changes import Change
from kn_attrib.editing.edit import Edit, wanted_queries
from kn_attrib.editing.learnt_vectors import Learning, learnt_vectors
from kn_attrib.editing.neuron_editor import NeuronEditor, value_changes
from kn_attrib.editing.registry import register_editor
from kn_attrib.errors import ConfigError, check_kinds
from kn_attrib.interventions.value_vectors import values_of
from kn_attrib.models.neuron_model import NeuronModel


@register_editor("optimised")
@dataclass(frozen=True)
class Optimised(NeuronEditor):
    """The value vectors of the fact's neurons learnt by gradient: the most that any edit of these could reach.

    ``v_i ← v_i + ‖v_i‖ z_i``, the ``z`` of all neurons together by Adam on the mean over texts of the mean over tokens
    of −log p(target), from 0, each ``‖z_i‖`` held below a limit. Answers may have several tokens.

    An upper bound of what can be reached in the texts that the edit is made with, found by local search; it says
    nothing of other texts.

    Parameters
    ----------
    neurons, method, refinement, k : see `NeuronEditor`.
    steps : most steps of Adam.
    rate : of Adam, in lengths of the value vector.
    stop : stop below this mean −log p, in nats.
    limit : most of ``‖z_i‖``: the 9 lengths that Dai et al.'s λ = 1 and 8 can come to.

    Reference
    ---------
    A bound, not a published method.
    """

    steps: int = 50
    rate: float = 0.05
    stop: float = 0.01
    limit: float = 9.0
    reference: ClassVar[str] = "a bound"

    def __post_init__(self) -> None:
        check_kinds(self, self.name)
        for name in ("steps", "rate", "limit"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{self.name}: {name} is {getattr(self, name)}; expected more than 0.")

    @override
    def changes(self, model: NeuronModel, edit: Edit) -> Sequence[Change]:
        """The learnt vectors; none where no neuron was found."""
        neurons = self.chosen(model, edit)
        if not neurons:
            return []
        values = values_of(model, neurons)
        sizes = values.to(torch.promote_types(values.dtype, torch.float32)).norm(dim=-1, keepdim=True)
        learning = Learning(self.steps, self.rate, self.stop, self._shortened)
        return value_changes(neurons, learnt_vectors(model, wanted_queries(model, edit), neurons, sizes, learning))

    def _shortened(self, scaled: Tensor) -> Tensor:
        lengths = scaled.norm(dim=-1, keepdim=True)
        held: Tensor = scaled * (self.limit / lengths.clamp_min(self.limit))
        return held
