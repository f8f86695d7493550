"""Editors that change a few neurons' value vectors: which neurons, and what Dai et al. add to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from kn_attrib.editing.changes import Change, ValueVectors
from kn_attrib.editing.edit import Edit, answer_ids
from kn_attrib.editing.editor import Editor
from kn_attrib.errors import EditError, MethodError, unknown
from kn_attrib.interventions.value_vectors import values_of
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.neurons import NeuronSet
from kn_attrib.scoring.refinement import refine
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.scoring.score import score

Scaling = Literal["norm", "none"]
Tokens = Literal["one", "mean"]


@dataclass(frozen=True)
class NeuronEditor(Editor):
    """An editor that changes the value vectors of a few neurons.

    Parameters
    ----------
    neurons : these ones, whatever fact is edited. If not given, those that a method finds on the edit's texts.
    method : the scorer that finds them, as `kn_attrib.score` takes it.
    refinement : ``"dai2022"`` or ``"eleuther"``; if not given, the method's own threshold in 70 % of the texts.
    k : the ``k`` best instead.
    """

    neurons: NeuronSet | None = None
    method: str = "integrated_gradients"
    refinement: str | None = None
    k: int | None = None

    def chosen(self, model: NeuronModel, edit: Edit) -> NeuronSet:
        """The neurons that the fact is thought to be in; maybe none.

        Raises
        ------
        NeuronError : a neuron does not exist.
        MethodError, ConfigError : unknown method, or settings of the refinement that exclude one another.
        """
        if self.neurons is not None:
            return check_neurons(model, NeuronSet(self.neurons))
        scores = score(model, edit.before, self.method)
        if self.refinement is None and self.k is None:
            return refine(scores, threshold=make_scorer(self.method).threshold)
        return refine(scores, preset=self.refinement, k=self.k)


@dataclass(frozen=True)
class AnswerVectors(NeuronEditor):
    """Take the old answer's embedding out of some value vectors and put the target's in.

    ``v_i ← v_i − λ₁ s(t) t + λ₂ s(t′) t′`` with the input embeddings ``t`` and ``t′`` of the old answer and of the
    target, and ``s(t) = ‖v_i‖ / ‖t‖`` (``v_i`` before the edit) or 1.

    Parameters
    ----------
    neurons, method, refinement, k : see `NeuronEditor`.
    remove, add : ``λ₁`` and ``λ₂``.
    scaling : ``"norm"``, so that ``λ`` counts in lengths of the value vector, or ``"none"``.
    tokens : answers of several tokens: ``"one"`` refuses them, as the definition has it; ``"mean"`` takes the mean of
        their tokens' embeddings.
    """

    remove: float = 1.0
    add: float = 8.0
    scaling: Scaling = "norm"
    tokens: Tokens = "one"

    def __post_init__(self) -> None:
        for name, value, known in (("scaling", self.scaling, Scaling), ("tokens", self.tokens, Tokens)):
            if value not in get_args(known):
                raise MethodError(f"{self.name}: {unknown(name, str(value), get_args(known))}")

    @abstractmethod
    def places(self, model: NeuronModel, edit: Edit) -> NeuronSet:
        """The neurons whose value vectors change."""

    @override
    def changes(self, model: NeuronModel, edit: Edit) -> Sequence[Change]:
        """The vectors that are added; none where no neuron was found.

        Raises
        ------
        EditError : an answer of several tokens, or embeddings of another width than the residual stream.
        """
        old, new = (self._embedding(model, edit, ids) for ids in answer_ids(model, edit))
        neurons = self.places(model, edit)
        values = values_of(model, neurons).to(old)
        sizes = values.norm(dim=-1, keepdim=True) if self.scaling == "norm" else torch.ones_like(values[:, :1])
        by_size = self.scaling == "norm"
        out, into = (vector / vector.norm() if by_size else vector for vector in (old, new))
        return value_changes(neurons, sizes * (self.add * into - self.remove * out))

    def _embedding(self, model: NeuronModel, edit: Edit, ids: Sequence[int]) -> Tensor:
        if len(ids) > 1 and self.tokens == "one":
            pieces = model.tokenizer.convert_ids_to_tokens(list(ids))
            raise EditError(
                f"edit of fact {edit.fact.id!r}: {self.name} is defined for answers of one token, and here is one of "
                f"{len(ids)} ({pieces}); take other answers, or say tokens='mean' for the mean of their embeddings."
            )
        embedding: Any = model.model.get_input_embeddings()
        weight = embedding.weight.detach()
        hidden = model.value_vectors(0).shape[1]
        if weight.shape[1] != hidden:
            raise EditError(
                f"{model.name}: embeddings have {weight.shape[1]} numbers and value vectors {hidden}; {self.name} adds "
                "one to the other, so it is not defined for this model."
            )
        found: Tensor = weight[torch.tensor(ids, device=weight.device)]
        return found.to(torch.promote_types(found.dtype, torch.float32)).mean(0)


def value_changes(neurons: NeuronSet, vectors: Tensor) -> list[Change]:
    """Vectors ``[neuron, hidden]`` in the set's sorted order, as changes layer by layer."""
    found: list[Change] = []
    for layer in sorted(neurons.layers):
        members = [row for row, neuron in enumerate(neurons) if neuron.layer == layer]
        indices = torch.tensor([neurons.neurons[row].index for row in members])
        found.append(ValueVectors(layer, indices, vectors[members].detach().cpu()))
    return found


def drawn(layer: int, order: Iterable[Any], avoid: NeuronSet, count: int) -> list[tuple[int, int]]:
    """The first neurons of a layer in an order, those to be avoided last.

    Parameters
    ----------
    order : indices of all neurons of the layer.
    avoid : taken only where no others are left.
    """
    own = {neuron.index for neuron in avoid if neuron.layer == layer}
    indices = sorted((int(i) for i in order), key=lambda i: i in own)
    return [(layer, i) for i in indices[:count]]
