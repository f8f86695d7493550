"""What methods ask for: the objective as a function of activation rows, within a memory budget.

`objective_function` picks the wave where the model has passed its guards and the plain path elsewhere; methods never
know which one answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, singledispatch
from typing import Any

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.guards import wave_or_none
from kn_attrib.forward.memory import bytes_per_row
from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.rows import Rows
from kn_attrib.forward.wave import WaveForward
from kn_attrib.models.answers import Objective
from kn_attrib.models.neuron_model import NeuronModel


class RowObjective:
    """``f_l(w)`` of many rows: any number of them, differentiable once, never more memory than the budget.

    Rows are independent of one another. So rows are evaluated chunk by chunk, and where a gradient is asked for each
    chunk runs backward at once, before the next one: only the gradient of the rows is kept.

    Parameters
    ----------
    forward : the implementation.
    budget : bytes that a chunk may take.
    """

    is_of_neurons = True
    """Whether rows are activations of neurons, and not coefficients of other units."""

    def __init__(self, forward: PlainForward | WaveForward, budget: int) -> None:
        self.forward = forward
        self.budget = budget

    def __call__(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Objective of each row, ``[row]``; parameters as in `PlainForward`."""
        values: Tensor = _Rows.apply(rows, self, layers, prompts)  # type: ignore[no-untyped-call]
        return values

    @property
    def is_wave(self) -> bool:
        """Whether the fast path answers."""
        return isinstance(self.forward, WaveForward)

    @property
    def is_thin(self) -> bool:
        """Whether a row is a single token, so that few rows cost hardly more than reading the weights."""
        return isinstance(self.forward, WaveForward) and self.forward.causal

    @cached_property
    def activations(self) -> Tensor:
        """Clean activations at the answer position: ``[prompt, layer, neuron]``."""
        if isinstance(self.forward, WaveForward):
            return self.forward.activations
        return self.forward.model.record(self.forward.batch)

    @cached_property
    def _clean(self) -> Tensor:
        return self.forward.clean()

    def clean(self) -> Tensor:
        """Objective of each prompt with nothing replaced: ``[prompt]``."""
        return self._clean

    def clean_slopes(self) -> Tensor:
        """Gradient of the objective at the clean activations: ``[prompt, layer, neuron]``."""
        clean = Rows.of(self.activations)
        if not isinstance(self.forward, WaveForward) or self.activations is not self.forward.activations:
            _, slopes = self.evaluate(clean.activations, clean.layers, clean.prompts, gradient=True)
            assert slopes is not None
            return slopes.view_as(self.activations)
        # Each row runs through all blocks, as those that enter in the first one.
        size = max(1, int(self.budget // float(bytes_per_row(self.forward, gradient=True)[0])))
        every = torch.arange(len(self.activations), device=self.activations.device)
        return torch.cat([self.forward.clean_slopes(part) for part in every.split(size)])

    def evaluate(self, rows: Tensor, layers: Tensor, prompts: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Objective of each row and, if asked for, its gradient ``[row, neuron]``."""
        values: list[Tensor] = []
        gradients: list[Tensor] = []
        order = layers.argsort(stable=True)
        for part in self._chunks(layers[order], gradient):
            for value, slope in self._fitting(rows, layers, prompts, order[part], gradient):
                values.append(value)
                if slope is not None:
                    gradients.append(slope)
        back = order.argsort()
        return torch.cat(values)[back], torch.cat(gradients)[back] if gradient else None

    def _fitting(
        self, rows: Tensor, layers: Tensor, prompts: Tensor, index: Tensor, gradient: bool
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Value and gradient of a chunk of rows, in halves where memory runs out."""
        try:
            value, slope = self._one(rows[index], layers[index], prompts[index], gradient)
        except torch.OutOfMemoryError:
            if len(index) == 1:
                raise
            value = None
        if value is not None:
            yield value, slope
            return
        # Outside the except clause: there the exception still holds the tensors of the failed attempt.
        torch.cuda.empty_cache()
        self.budget //= 2
        for half in index.tensor_split(2):
            yield from self._fitting(rows, layers, prompts, half, gradient)

    def _one(self, rows: Tensor, layers: Tensor, prompts: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        if not gradient:
            with torch.no_grad():
                return self.forward(rows, layers, prompts), None
        with torch.enable_grad():
            leaf = rows.detach().requires_grad_()
            value = self.forward(leaf, layers, prompts)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope

    def _chunks(self, layers: Tensor, gradient: bool) -> Iterator[slice]:
        """Slices of rows, sorted by layer, that fit into the budget (at least one row each)."""
        cost = bytes_per_row(self.forward, gradient).to(layers.device)[layers].tolist()
        start, total = 0, 0.0
        for row, each in enumerate(cost):
            if total + each > self.budget and row > start:
                yield slice(start, row)
                start, total = row, 0.0
            total += each
        yield slice(start, len(cost))


class _Rows(torch.autograd.Function):
    """Values of rows whose gradients were computed along with them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, objective: RowObjective, layers: Tensor, prompts: Tensor) -> Tensor:
        values, gradients = objective.evaluate(rows, layers, prompts, gradient=ctx.needs_input_grad[0])
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return values

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        by_row = outer[0].view(-1, *[1] * (gradients.ndim - 1)).to(gradients)
        return by_row * gradients, None, None, None


@singledispatch
def objective_function(model: NeuronModel, batch: Batch, objective: Objective = "prob") -> RowObjective:
    """The objective of a batch as a function of activation rows, by the fastest way that is right for the model.

    Views with other units than neurons have rows of coefficients (`kn_attrib.units`).

    Raises
    ------
    ModelError : prompts of several lengths, and the model has no wave for them; see `batches_of`.

    Warns
    -----
    PlainPathWarning : once per model, if it has to be run on the plain path; names the type and the reason.
    """
    budget = model.execution.row_budget(model.device)
    wave = wave_or_none(model, batch, objective)
    return RowObjective(wave or PlainForward(model, batch, objective), budget)
