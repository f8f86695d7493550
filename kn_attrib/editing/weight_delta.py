"""What an edit adds to a model's weights: made once, kept in a small file, applied and undone anywhere."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from kn_attrib.editing.changes import Change, RankOne, ValueVectors
from kn_attrib.errors import EditError, StoreError
from kn_attrib.interventions.value_vectors import RowIndices
from kn_attrib.models.matrices import value_matrix
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.store import atomic_path, parsed_json, read_tensors
from kn_attrib.units.view import UnitModel

METADATA = "kn_attrib_edit"
NAME = re.compile(r"layer\.(\d+)\.(neurons|vectors|left|right)")
KINDS: dict[frozenset[str], type[ValueVectors] | type[RankOne]] = {
    frozenset({"neurons", "vectors"}): ValueVectors,
    frozenset({"left", "right"}): RankOne,
}
"""Kinds of changes by the names of their tensors."""


@dataclass(frozen=True)
class WeightDelta:
    """What is added to feed-forward output matrices, ``[neuron, hidden]``, of one model.

    Parameters
    ----------
    changes : at most one for each layer; none where an edit changes nothing.
    model_digest : of the weights that it was made for (`NeuronModel.digest`).
    about : the model's name, the editor with its parameters, the fact and its target.

    Raises
    ------
    EditError : a layer is changed twice, or a number is not finite.
    """

    changes: tuple[Change, ...]
    model_digest: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", tuple(sorted(self.changes, key=lambda change: change.layer)))
        twice = [layer for layer, n in Counter(change.layer for change in self.changes).items() if n > 1]
        if twice:
            raise EditError(f"layer {twice[0]} is changed twice in one delta; expected one change for each layer.")
        for change in self.changes:
            if not all(bool(tensor.isfinite().all()) for tensor in change.tensors().values()):
                raise EditError(f"the change of layer {change.layer} has numbers that are not finite{self._source}.")

    @property
    def _source(self) -> str:
        return f" ({self.about['editor']} of fact {self.about['fact']!r})" if "fact" in self.about else ""

    @cached_property
    def norm(self) -> float:
        """Euclidean length of all that is added."""
        return math.hypot(*(change.norm() for change in self.changes))

    @cached_property
    def size(self) -> int:
        """Numbers that a file of it holds."""
        return sum(tensor.numel() for change in self.changes for tensor in change.tensors().values())

    def same(self, other: WeightDelta) -> bool:
        """Whether another delta adds the same to the same weights."""
        if self.model_digest != other.model_digest or len(self.changes) != len(other.changes):
            return False
        return all(a.same(b) for a, b in zip(self.changes, other.changes, strict=True))

    def places(self, model: NeuronModel) -> list[tuple[Tensor, RowIndices, Tensor]]:
        """For `write_rows`: each changed matrix, its rows, and what they become.

        The sum is made in at least single precision and rounded once, in the same way wherever the delta is applied.

        Raises
        ------
        NeuronError : the model has no such layer.
        EditError : other widths, or weights that something else uses too: other layers, the embeddings, the head.
        """
        check_model(model)
        found: list[tuple[Tensor, RowIndices, Tensor]] = []
        for change in self.changes:
            shape = tuple(model.value_vectors(change.layer).shape)
            change.check(shape)
            check_alone(model, change.layer)
            matrix = value_matrix(model.ffn_outputs[change.layer]).detach()
            old = matrix[change.rows]
            wide = torch.promote_types(torch.promote_types(old.dtype, torch.float32), change.dtype)
            new = old.to(wide) + change.added().to(old.device, wide)
            found.append((matrix, change.rows, new.to(old.dtype)))
        return found

    def save(self, path: str | Path) -> None:
        """Write one ``.safetensors`` file: the tensors, and everything else as JSON in its metadata."""
        tensors = {
            f"layer.{change.layer}.{name}": tensor.detach().cpu().contiguous().clone()
            for change in self.changes
            for name, tensor in change.tensors().items()
        }
        record = json.dumps({"model_sha256": self.model_digest, "about": dict(self.about)}, ensure_ascii=False)
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={METADATA: record})

    @classmethod
    def load(cls, path: str | Path) -> WeightDelta:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the file is missing, damaged, or of something else.
        """
        try:
            tensors, metadata = read_tensors(Path(path))
            if METADATA not in metadata:
                raise ValueError("it says nothing of an edit")
            record = parsed_json(metadata[METADATA])
            digest, about = (
                record.get(name) if isinstance(record, dict) else None for name in ("model_sha256", "about")
            )
            if not isinstance(digest, str) or not isinstance(about, dict):
                raise ValueError("its record names no model or no edit")
            return cls(_changes(tensors), digest, about)
        except (StoreError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise StoreError(
                f"cannot read an edit from {path}: {reason}; expected a file of WeightDelta.save."
            ) from error


def _changes(tensors: Mapping[str, Tensor]) -> tuple[Change, ...]:
    by_layer: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"it has a tensor {name!r}")
        by_layer.setdefault(int(match[1]), {})[match[2]] = tensor
    found: list[Change] = []
    for layer, parts in by_layer.items():
        kind = KINDS.get(frozenset(parts))
        if kind is None:
            raise ValueError(f"of layer {layer} it has {', '.join(sorted(parts))}")
        found.append(kind(layer, **parts))
    return tuple(found)


def check_model(model: NeuronModel) -> None:
    """Raise on a view of a model, whose units have no weights of their own.

    Raises
    ------
    EditError : it is one.
    """
    if isinstance(model, UnitModel):
        raise EditError(f"{model.name} is a view; weights are those of {model.site.name}, edit that one.")


def check_alone(model: NeuronModel, layer: int) -> None:
    """Raise where a layer's output matrix cannot be changed alone.

    Raises
    ------
    EditError : other layers share it, or it is tied to another weight, such as the embeddings or the head.
    """
    if model.architecture.shared_module:
        raise EditError(
            f"{model.name}: its layers share their feed-forward weights; an edit of layer {layer} would change all."
        )
    weight = value_matrix(model.ffn_outputs[layer])
    named = model.model.named_parameters(remove_duplicate=False)
    names = [name for name, each in named if each.data_ptr() == weight.data_ptr()]
    if len(names) > 1:
        raise EditError(
            f"{model.name}: the output matrix of layer {layer} is one tensor with others ({', '.join(names)}); an edit "
            "of it would change them too, such as the head or the embeddings. Untie them first, or edit another layer."
        )
