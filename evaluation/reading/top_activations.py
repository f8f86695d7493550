"""The highest activations of every neuron over a corpus, in memory that does not grow with the corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.evaluation.reading.contexts import Passage
from kn_attrib.models.neuron_model import Edit, NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults

NONE = -1
"""Number of a context where a neuron has fewer than were asked for."""


@dataclass
class TopActivations:
    """The ``k`` contexts in which each neuron of a layer is furthest from zero, the furthest first.

    Distance counts, not the sign: in gated blocks both signs are used. Neurons that are at zero everywhere have none.

    Attributes
    ----------
    activations : ``[neuron, k]``, activations with their sign; 0 where there are fewer.
    numbers : ``[neuron, k]``, the contexts' numbers; `NONE` where there are fewer.
    keys : ``[neuron, k]``, hashes by which equal contexts are known.
    """

    activations: Tensor
    numbers: Tensor
    keys: Tensor

    @classmethod
    def none(cls, n_neurons: int, k: int, values: Tensor) -> TopActivations:
        """Nothing read yet; ``values`` says in which precision and where activations will be."""
        numbers = torch.full((n_neurons, k), NONE, dtype=torch.long, device=values.device)
        return cls(values.new_zeros(n_neurons, k), numbers, numbers.clone())

    def add(self, values: Tensor, numbers: Tensor, keys: Tensor) -> None:
        """Take in some contexts, no two of them equal.

        Parameters
        ----------
        values : ``[context, neuron]``, activations.
        numbers, keys : ``[context]``.
        """
        some = (values.abs() > self.activations[:, -1].abs()).any(0).nonzero()[:, 0]
        if len(some):
            own = values[:, some].T.contiguous()
            # At most k of them are kept already, under another number: among twice as many are the k new ones.
            furthest = own.abs().topk(min(2 * self.activations.shape[1], len(values)), dim=1).indices
            self.merge(some, own.gather(1, furthest), numbers[furthest], keys[furthest])

    def merge(self, some: Tensor, values: Tensor, numbers: Tensor, keys: Tensor) -> None:
        """Take in contexts of ``some`` neurons; ``values``, ``numbers`` and ``keys`` are ``[neuron, context]``."""
        kept = (keys[:, :, None] == self.keys[some][:, None, :]) & (self.numbers[some] != NONE)[:, None, :]
        pool = torch.cat([self.activations[some], values.masked_fill(kept.any(-1), 0)], dim=1)
        order = pool.abs().topk(self.activations.shape[1], dim=1).indices
        self.activations[some] = pool.gather(1, order)
        fired = self.activations[some] != 0
        for own, given in ((self.numbers, numbers), (self.keys, keys)):
            chosen = torch.cat([own[some], given], dim=1).gather(1, order)
            own[some] = torch.where(fired, chosen, NONE)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {"activations": self.activations, "numbers": self.numbers, "keys": self.keys}


@torch_defaults()
def highest_activations(
    model: NeuronModel, batches: Iterable[list[Passage]], k: int, progress: Callable[[int], object] | None = None
) -> TopActivations:
    """Read passages and keep the ``k`` furthest activations of all neurons: tensors ``[layer · neuron, k]``.

    One forward pass per passage; beside one layer's activations only the result is held.

    Parameters
    ----------
    batches : passages of one length each.
    progress : is told the number of tokens of each batch.
    """
    top = [
        TopActivations.none(model.n_neurons, k, model.value_vectors(layer).new_empty(0))
        for layer in range(model.n_layers)
    ]
    for batch in batches:
        where = {
            "row": [row for row, passage in enumerate(batch) for _ in passage.places],
            "place": [place for passage in batch for place in passage.places],
            "number": [number for passage in batch for number in passage.numbers],
            "key": [key for passage in batch for key in passage.keys],
        }
        at = {name: torch.tensor(values, device=model.device) for name, values in where.items()}
        ids = torch.tensor([passage.ids for passage in batch], device=model.device)
        last = torch.full((len(batch),), ids.shape[1] - 1, device=model.device)
        with torch.no_grad(), model.edited({layer: _keep(each, at) for layer, each in enumerate(top)}):
            model.final(last, input_ids=ids)
        if progress is not None:
            progress(ids.numel())
    return TopActivations(
        *(torch.cat([each.tensors()[name] for each in top]) for name in ("activations", "numbers", "keys"))
    )


def _keep(top: TopActivations, at: Mapping[str, Tensor]) -> Edit:
    def edit(vectors: Tensor) -> Tensor:
        top.add(vectors[at["row"], at["place"]], at["number"], at["key"])
        return vectors

    return edit
