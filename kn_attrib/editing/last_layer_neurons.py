"""The update of knowledge neurons, in the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from kn_attrib.editing.edit import Edit
from kn_attrib.editing.neuron_editor import AnswerVectors, drawn
from kn_attrib.editing.registry import register_editor
from kn_attrib.errors import EditError
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet
from kn_attrib.randomness import checked_seed, numpy_generator


@register_editor("last_layer_neurons")
@dataclass(frozen=True)
class LastLayerNeurons(AnswerVectors):
    """The same update at as many random neurons of the last layer, from where the embedding goes straight to the head.

    What an edit reaches by writing the target's embedding next to the output, with no knowledge of where the fact is.

    Parameters
    ----------
    seed : of the draw, which also depends on the fact.

    Reference
    ---------
    A control.
    """

    seed: int = 0
    reference: ClassVar[str] = "a control"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_seed(self.seed)

    @override
    def places(self, model: NeuronModel, edit: Edit) -> NeuronSet:
        """Neurons of the last layer, none of the fact's own wherever others are left.

        Raises
        ------
        EditError : the fact has more neurons than a layer has.
        """
        own = self.chosen(model, edit)
        if len(own) > model.n_neurons:
            raise EditError(
                f"edit of fact {edit.fact.id!r}: it has {len(own)} neurons, and a layer of {model.name} only "
                f"{model.n_neurons}; choose fewer (k=…)."
            )
        order = numpy_generator(self.seed, self.name, edit.fact.id).permutation(model.n_neurons)
        return NeuronSet(drawn(model.n_layers - 1, order, own, len(own)))
