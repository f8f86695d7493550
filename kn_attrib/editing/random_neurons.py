"""The update of knowledge neurons, at random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from kn_attrib.editing.edit import Edit
from kn_attrib.editing.neuron_editor import AnswerVectors, drawn
from kn_attrib.editing.registry import register_editor
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet
from kn_attrib.randomness import checked_seed, numpy_generator


@register_editor("random_neurons")
@dataclass(frozen=True)
class RandomNeurons(AnswerVectors):
    """The same update at as many random neurons of the same layers: does it matter where the target is added?

    In each layer as many neurons as the fact has there, drawn without its own wherever others are left. Lengths are
    scaled by the drawn neurons' value vectors, as in the published code's own (disabled) random control.

    Parameters
    ----------
    seed : of the draw, which also depends on the fact.

    Reference
    ---------
    A control. The random neurons of Dai et al. 2022, arXiv 2104.08696.
    """

    seed: int = 0
    reference: ClassVar[str] = "a control"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_seed(self.seed)

    @override
    def places(self, model: NeuronModel, edit: Edit) -> NeuronSet:
        """Other neurons of the layers that the fact's neurons are in."""
        own = self.chosen(model, edit)
        found: list[tuple[int, int]] = []
        for layer, count in sorted(own.layers.items()):
            order = numpy_generator(self.seed, self.name, edit.fact.id, layer).permutation(model.n_neurons)
            found += drawn(layer, order, own, count)
        return NeuronSet(found)
