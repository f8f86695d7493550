"""Dai et al.'s update of a fact through its knowledge neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from kn_attrib.editing.edit import Edit
from kn_attrib.editing.neuron_editor import AnswerVectors
from kn_attrib.editing.registry import register_editor
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet


@register_editor("knowledge_neurons")
@dataclass(frozen=True)
class KnowledgeNeurons(AnswerVectors):
    """The answer's embedding taken out of the fact's neurons' value vectors, and the target's put in.

    ``v_i ← v_i − λ₁ (‖v_i‖/‖t‖) t + λ₂ (‖v_i‖/‖t′‖) t′`` for each of the fact's neurons, with the input embeddings of
    the old answer's and of the target's token (`AnswerVectors` has the parameters).

    Presets: ``paper`` (λ = 1 and 8, embeddings as they are) and ``code`` (λ = 1 and 1, lengths scaled), the two forms
    that were published. The default has the paper's λ and the code's scaling.

    Differs from the published code, which removes the embedding of the model's most likely token after requiring that
    it is the answer: here the answer's own is removed, and whether the model knows the fact is the caller's to ask. It
    also leaves out neurons that many of the relation's facts share; give the others as ``neurons``
    (`kn_attrib.editing.unshared_sets`).

    Reference
    ---------
    Dai et al. 2022, *Knowledge Neurons in Pretrained Transformers*, arXiv 2104.08696, section 5.1.
    """

    reference: ClassVar[str] = "Dai et al. 2022, arXiv 2104.08696"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"remove": 1.0, "add": 8.0, "scaling": "none"},
        "code": {"remove": 1.0, "add": 1.0, "scaling": "norm"},
    }

    @override
    def places(self, model: NeuronModel, edit: Edit) -> NeuronSet:
        """The fact's neurons."""
        return self.chosen(model, edit)
