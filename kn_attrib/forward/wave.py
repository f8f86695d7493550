"""The objective as a function of activation rows, all layers in one pass: the fast twin of `PlainForward`.

Replacing the activation of layer ``l`` changes nothing before the output linear of that layer. So rows of layer ``l``
enter the model only at block ``l``, with the input that this block has in a clean pass, and run on together with the
rows that entered earlier. After the last block only the answer position goes through the head. In causal models only
the answer token can change: rows are one token long and read the keys and values that the clean pass has left.

Nothing of a model is computed anew here: its own blocks, attention, norms and head are called, and hooks put the rows
in. What cannot be run this way is found by the guards (`kn_attrib.forward.guards`), never assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Batch, MixedBatch
from kn_attrib.forward.clean_pass import CleanPass, CleanPassRecorder, RunningRows
from kn_attrib.forward.mixed_lengths import record_lengths
from kn_attrib.forward.tail import run_tail
from kn_attrib.forward.wave_block import WaveBlock
from kn_attrib.models.anatomy import find_attention, find_blocks, find_ffn_inputs
from kn_attrib.models.answers import Objective, objective_of
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet


@dataclass(frozen=True)
class WaveForward:
    """``f_l(w)`` for rows of all layers in one pass; the same call as `PlainForward`, which is its reference.

    Parameters
    ----------
    model, batch : the prompts that rows refer to; in causal models the answer is predicted at the last token.
    objective : ``"prob"``, ``"logprob"``, ``"logit"`` or ``"logodds"``.
    whole : rows are ``[row, token, neuron]`` and replace a layer's activations at all tokens.

    Raises
    ------
    ModelError : the model's layers or the batch are not laid out in a way that a wave can run through.
    """

    model: NeuronModel
    batch: Batch
    objective: Objective = "prob"
    whole: bool = False
    running: RunningRows = field(default_factory=RunningRows)

    def __post_init__(self) -> None:
        if self.model.kind == "encoder-decoder":
            raise ModelError("it is an encoder-decoder")
        if self.model.kind == "causal" and any(p.position != len(p.input_ids) - 1 for p in self.batch.prompts):
            raise ModelError("a prompt goes on after the position that predicts its answer")

    def __call__(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Objective of each row: ``[row]`` (parameters as in `PlainForward`)."""
        final = self.final(rows, layers, prompts)
        return objective_of(self.model.head.gold(final, self.answers[prompts]), self.objective)

    def clean(self) -> Tensor:
        """Objective of each prompt with nothing replaced: ``[prompt]``."""
        return objective_of(self.model.head.gold(self.clean_pass.final, self.answers), self.objective)

    @property
    def activations(self) -> Tensor:
        """``[prompt, layer, neuron]`` at the answer position, from the clean pass."""
        return self.clean_pass.activations

    def clean_slopes(self, prompts: Tensor) -> Tensor:
        """Gradient of the objective at the clean activations of some prompts, ``[prompt, layer, neuron]``.

        One row for each prompt, which enters in layer 0 and has a zero added in every layer that it runs through.
        """
        shape = (len(prompts), *self.activations.shape[1:])
        with torch.enable_grad():
            added = torch.zeros(shape, dtype=self.model.dtype, device=prompts.device, requires_grad=True)
            self.running.added = added
            try:
                value = self(self.activations[prompts, 0] + added[:, 0], torch.zeros_like(prompts), prompts)
            finally:
                self.running.added = None
            (slopes,) = torch.autograd.grad(value.sum(), added)
        return slopes

    def final(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """What the head makes its answer of, for each row (see `NeuronModel.final`)."""
        if bool((layers.diff() < 0).any()):
            order = layers.argsort(stable=True)
            return self.final(rows[order], layers[order], prompts[order])[order.argsort()]
        clean = self.clean_pass
        with self.model.running(self.positions):
            hidden = self._blocks(rows.to(self.model.dtype), layers, prompts)
            final = run_tail(self.model, self.blocks, clean.packs, hidden, self._any_token)
        return self.model.execution.cost.count(final)

    def scaled(
        self,
        sets: Sequence[NeuronSet],
        prompts: Tensor,
        factors: Sequence[float],
        shifts: Sequence[Sequence[float]] | None = None,
    ) -> Tensor:
        """`final` of rows that have neurons of their own changed; see `many_rows`."""
        final = self.clean_pass.final[prompts]
        plus = shifts or [()] * len(sets)
        changed = [row for row, neurons in enumerate(sets) if neurons and (factors[row] != 1 or plus[row])]
        if changed:
            some = [sets[row] for row in changed]
            added = [plus[row] or [0.0] * len(sets[row]) for row in changed]
            final[changed] = self._changed(some, prompts[changed], [factors[row] for row in changed], added)
        return final

    def _changed(
        self,
        sets: Sequence[NeuronSet],
        prompts: Tensor,
        factors: Sequence[float],
        shifts: Sequence[Sequence[float]],
    ) -> Tensor:
        """`scaled` of rows that all have neurons to change, and a shift for each neuron."""
        # Sets are sorted: a row enters at the layer of its first neuron.
        first = torch.tensor([neurons.neurons[0].layer for neurons in sets], device=prompts.device)
        rows = self.activations[prompts, first]
        # One entry for each neuron of each set from here on.
        owner = torch.tensor([row for row, neurons in enumerate(sets) for _ in neurons], device=rows.device)
        every = torch.tensor([neuron for neurons in sets for neuron in neurons], device=rows.device)
        layers, indices = every.unbind(1)
        by = rows.new_tensor(factors)[owner]
        plus = rows.new_tensor([shift for own in shifts for shift in own])
        now = layers == first[owner]
        at = (owner[now], indices[now])
        rows[at] = rows[at] * by[now] + plus[now]
        place = first.argsort(stable=True).argsort()  # where each row stands once sorted by layer
        for layer in layers[~now].unique().tolist():
            here = ~now & (layers == layer)
            self.running.later[layer] = (place[owner[here]], indices[here], by[here], plus[here])
        try:
            return self.final(rows, first, prompts)
        finally:
            self.running.later.clear()

    @cached_property
    def clean_pass(self) -> CleanPass:
        """The clean pass, run once."""
        if isinstance(self.batch, MixedBatch):
            return record_lengths(self.model, self.blocks, self.batch, self.running)
        recorder = CleanPassRecorder(self.model, self.blocks, prefix=self.causal)
        return recorder.record(self.batch.inputs(), self.positions, self.running)

    @cached_property
    def causal(self) -> bool:
        """Only the answer token of a row can change."""
        return self.model.kind == "causal" and not self.whole

    @cached_property
    def _any_token(self) -> Tensor:
        """``[1, 1]``"""
        return torch.tensor([self.batch.prompts[0].input_ids[-1:]], device=self.model.device)

    @cached_property
    def positions(self) -> Tensor:
        return self.batch.positions

    @cached_property
    def answers(self) -> Tensor:
        return self.batch.answers

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """The model's blocks, one per layer."""
        return find_blocks(self.model)

    @cached_property
    def ffn_inputs(self) -> list[list[nn.Module]]:
        """Modules of each block that read what its feed-forward block reads."""
        return [find_ffn_inputs(block, self.model.n_neurons) for block in self.blocks]

    @cached_property
    def attentions(self) -> list[nn.Module | None]:
        """The attention module of each block that rows need not run through where they enter."""
        return [self._attention(layer) for layer in range(self.model.n_layers)]

    def _attention(self, layer: int) -> nn.Module | None:
        attention = find_attention(self.blocks[layer], self.model.ffn_outputs[layer])
        if attention is None or self.clean_pass.attended[layer] is None:
            return None
        _, kwargs = self.clean_pass.calls[layer]
        # ALiBi's biases are laid out by row and head together, and a forward of somebody's own may do anything.
        return None if "alibi" in kwargs or "forward" in vars(attention) else attention

    @cached_property
    def _block(self) -> WaveBlock:
        return WaveBlock(
            model=self.model,
            blocks=self.blocks,
            ffn_inputs=self.ffn_inputs,
            attentions=self.attentions,
            clean=self.clean_pass,
            running=self.running,
            positions=self.positions,
            whole=self.whole,
            causal=self.causal,
        )

    def _blocks(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Run rows, sorted by layer, through the blocks: hidden states at the answer position ``[row, 1, hidden]``."""
        counts = torch.bincount(layers, minlength=self.model.n_layers).tolist()
        entering = rows.split(counts)
        hidden = self.clean_pass.inputs[0][:0]
        for layer in range(int(layers[0]), self.model.n_layers):
            done = len(hidden) + counts[layer]
            hidden = self._block.run(layer, hidden, entering[layer], prompts[:done])
        if self.causal:
            return hidden
        return hidden[torch.arange(len(rows), device=hidden.device), self.positions[prompts]].unsqueeze(1)
