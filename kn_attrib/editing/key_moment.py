"""The uncentred second moment of a layer's neuron vectors over ordinary text: what its keys usually are."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.errors import EditError
from kn_attrib.models.neuron_model import Edit as Change
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults

ENOUGH = 10
"""Tokens for each neuron below which the moment is said to be rough."""
TOKENS = 2**12
"""Most tokens in one pass."""
TOLERANCE = 1e-6
"""Largest relative residual of a solution."""


class FewKeysWarning(UserWarning):
    """The second moment of keys was taken over few tokens."""


@dataclass(frozen=True, eq=False)
class KeyMoment:
    """``C = mean of k kᵀ`` over the tokens of some texts, ``k`` a layer's neuron vector.

    Parameters
    ----------
    layer : whose keys.
    matrix : ``[neuron, neuron]``, in double precision.
    tokens : how many it is the mean of.
    """

    layer: int
    matrix: Tensor
    tokens: int

    def solve(self, key: Tensor, ridge: float = 0.0) -> Tensor:
        """``(C + ridge · mean of C's diagonal · I)⁻¹ k``, in double precision on the CPU.

        Parameters
        ----------
        key : ``[neuron]``.
        ridge : 0 for ``C`` as it is.

        Raises
        ------
        EditError : the matrix cannot be inverted: there were too few tokens, or neurons that were always silent.
        """
        width, wanted = len(self.matrix), key.detach().cpu().double()
        matrix = self.matrix + ridge * self.matrix.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        found: Tensor
        found, failed = torch.linalg.solve_ex(matrix, wanted)
        residual = (matrix @ found - wanted).norm() / wanted.norm()
        if bool(failed) or (ridge == 0 and self.tokens < width) or not residual <= TOLERANCE:
            raise EditError(
                f"the second moment of the keys of layer {self.layer}, over {self.tokens} tokens and for {width} "
                "neurons, cannot be inverted: there are fewer tokens than neurons, or neurons that were never active. "
                "Fit the editor on more text, or give a ridge such as 0.01."
            )
        return found


@torch_defaults()
def key_moment(model: NeuronModel, layer: int, texts: Sequence[str]) -> KeyMoment:
    """The second moment of a layer's neuron vectors at all tokens of some texts.

    Texts are encoded as the tokenizer does, and cut to what the model reads.

    Raises
    ------
    EditError : there is no text, or the model is an encoder-decoder.
    NeuronError : the model has no such layer.

    Warns
    -----
    FewKeysWarning : there are fewer than ten tokens for each neuron.
    """
    width = model.value_vectors(layer).shape[0]
    if model.kind == "encoder-decoder":
        raise EditError(f"{model.name} is an encoder-decoder; keys are taken from the text of one stack.")
    total, tokens = torch.zeros(width, width, dtype=torch.float64), 0
    for rows in _rows(model, texts):
        keys = _keys(model, layer, rows).double().cpu()
        total += keys.T @ keys
        tokens += len(keys)
    if not tokens:
        raise EditError("texts are empty; expected ordinary text for the second moment of keys.")
    if tokens < ENOUGH * width:
        message = (
            f"the second moment of the keys of layer {layer} is of {tokens} tokens for {width} neurons; expected "
            f"{ENOUGH * width} at least, so that it says what keys usually are. Give more text."
        )
        warnings.warn(message, FewKeysWarning, stacklevel=2)
    return KeyMoment(layer, total / tokens, tokens)


def _rows(model: NeuronModel, texts: Sequence[str]) -> Iterator[Tensor]:
    """Token ids of the texts, ``[row, token]``, those of one length together."""
    groups: dict[int, list[list[int]]] = defaultdict(list)
    for text in texts:
        ids: list[int] = model.tokenizer(text)["input_ids"][: model.encoder.most_tokens]
        if ids:
            groups[len(ids)].append(ids)
    for length, group in sorted(groups.items()):
        rows = max(1, TOKENS // length)
        for start in range(0, len(group), rows):
            yield torch.tensor(group[start : start + rows], device=model.device)


def _keys(model: NeuronModel, layer: int, ids: Tensor) -> Tensor:
    """A layer's neuron vectors at all tokens: ``[row · token, neuron]``."""
    found: list[Tensor] = []

    def keep(vectors: Tensor) -> Tensor:
        found.append(vectors.detach().flatten(0, 1))
        return vectors

    edit: Change = keep
    last = torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
    with torch.no_grad(), model.edited({layer: edit}):
        model.final(last, input_ids=ids)
    return found[0]
