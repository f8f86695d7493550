"""The objective as a function of activation rows, all layers in one pass: the fast twin of `PlainForward`.

Replacing the activation of layer ``l`` changes nothing before the output linear of that layer. So rows of layer ``l``
enter the model only at block ``l``, with the input that this block has in a clean pass, and run on together with the
rows that entered earlier. After the last block only the answer position goes through the head. In causal models only
the answer token can change: rows are one token long and read the keys and values that the clean pass has left.

Nothing of a model is computed anew here: its own blocks, attention, norms and head are called, and hooks put the rows
in. What cannot be run this way is found by the guards (`kn_attrib.forward.guards`), never assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.clean_pass import CleanPass, CleanPassRecorder, RunningRows
from kn_attrib.forward.tail import pack, replaced, run_tail
from kn_attrib.models.anatomy import find_attention, find_blocks, find_ffn_inputs
from kn_attrib.models.answers import Objective, objective_value
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
        if self.model.kind == "causal" and not bool((self.positions == self.ids.shape[1] - 1).all()):
            raise ModelError("a prompt goes on after the position that predicts its answer")

    def __call__(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Objective of each row: ``[row]`` (parameters as in `PlainForward`)."""
        return objective_value(self.logits(rows, layers, prompts), self.answers[prompts], self.objective)

    def clean(self) -> Tensor:
        """Objective of each prompt with nothing replaced: ``[prompt]``."""
        return objective_value(self.recording.logits, self.answers, self.objective)

    @property
    def activations(self) -> Tensor:
        """``[prompt, layer, neuron]`` at the answer position, from the clean pass."""
        return self.recording.activations

    def logits(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Logits at the answer position of each row: ``[row, vocabulary]``."""
        if bool((layers.diff() < 0).any()):
            order = layers.argsort(stable=True)
            return self.logits(rows[order], layers[order], prompts[order])[order.argsort()]
        recording = self.recording
        with self.model.running(self.positions):
            hidden = self._blocks(rows.to(self.model.dtype), layers, prompts)
            logits = run_tail(self.model, self.blocks, recording.packs, hidden, self.ids[:1, -1:])
        return self.model.execution.cost.count(logits)

    def scaled_logits(
        self,
        sets: Sequence[NeuronSet],
        prompts: Tensor,
        factors: Sequence[float],
        shifts: Sequence[Sequence[float]] | None = None,
    ) -> Tensor:
        """Logits of rows that have neurons of their own changed, ``[row, vocabulary]``; see `scaled.scaled_logits`."""
        logits = self.recording.logits[prompts]
        plus = shifts or [()] * len(sets)
        changed = [row for row, neurons in enumerate(sets) if neurons and (factors[row] != 1 or plus[row])]
        if changed:
            by = [(factors[row], plus[row] or [0.0] * len(sets[row])) for row in changed]
            logits[changed] = self._changed([sets[row] for row in changed], prompts[changed], by)
        return logits

    def _changed(
        self, sets: Sequence[NeuronSet], prompts: Tensor, by: Sequence[tuple[float, Sequence[float]]]
    ) -> Tensor:
        # Sets are sorted: a row enters at the layer of its first neuron.
        first = torch.tensor([neurons.neurons[0].layer for neurons in sets], device=prompts.device)
        rows = self.activations[prompts, first]
        place = first.argsort(stable=True).argsort()  # where each row stands once sorted by layer
        owner = torch.tensor([row for row, neurons in enumerate(sets) for _ in neurons], device=rows.device)
        every = torch.tensor([neuron for neurons in sets for neuron in neurons], device=rows.device)
        layers, indices = every.unbind(1)
        factors = rows.new_tensor([factor for factor, _ in by])[owner]
        shifts = rows.new_tensor([shift for _, own in by for shift in own])
        now = layers == first[owner]
        at = (owner[now], indices[now])
        rows[at] = rows[at] * factors[now] + shifts[now]
        for layer in layers[~now].unique().tolist():
            here = ~now & (layers == layer)
            self.running.later[layer] = (place[owner[here]], indices[here], factors[here], shifts[here])
        try:
            return self.logits(rows, first, prompts)
        finally:
            self.running.later.clear()

    @cached_property
    def recording(self) -> CleanPass:
        """The clean pass, run once."""
        recorder = CleanPassRecorder(self.model, self.blocks, prefix=self.causal)
        return recorder.record(self.batch.inputs(), self.positions, self.running)

    @cached_property
    def causal(self) -> bool:
        """Only the answer token of a row can change."""
        return self.model.kind == "causal" and not self.whole

    @cached_property
    def ids(self) -> Tensor:
        """Token ids of the batch: ``[prompt, token]``."""
        return self.batch.input_ids

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
        found = [find_attention(block, site) for block, site in zip(self.blocks, self.model.ffn_outputs, strict=True)]
        return [
            # ALiBi's biases are laid out by row and head together, and a forward of somebody's own may do anything.
            None if attended is None or "alibi" in kwargs or "forward" in vars(attention) else attention
            for attention, attended, (_, kwargs) in zip(
                found, self.recording.attended, self.recording.calls, strict=True
            )
        ]

    def _blocks(self, rows: Tensor, layers: Tensor, prompts: Tensor) -> Tensor:
        """Run rows, sorted by layer, through the blocks: hidden states at the answer position ``[row, 1, hidden]``."""
        recording, running = self.recording, self.running
        counts = torch.bincount(layers, minlength=self.model.n_layers).tolist()
        entering = rows.split(counts)
        hidden = recording.inputs[0][:0]
        done = 0
        for layer in range(int(layers[0]), self.model.n_layers):
            new = slice(done, done + counts[layer])
            running.layer, running.inside = layer, done
            done += counts[layer]
            running.prompts = prompts[:done]
            running.entering = self._entering(entering[layer], prompts[new])
            args, kwargs = recording.calls[layer]
            states = torch.cat([hidden, recording.inputs[layer][prompts[new]]])
            with self._hooked(layer):
                output = self.blocks[layer](states, *args, **_for_rows(kwargs, done))
            hidden = output[0] if isinstance(output, tuple) else output
        if self.causal:
            return hidden
        return hidden[torch.arange(done, device=hidden.device), self.positions[prompts]].unsqueeze(1)

    def _entering(self, rows: Tensor, prompts: Tensor) -> Tensor:
        """What rows bring into the running block, token by token: ``[token, neuron]``."""
        if not self.whole:
            return rows
        if self.running.layer == self.model.n_layers - 1:  # nothing else reaches the answer any more
            return rows[torch.arange(len(rows), device=rows.device), self.positions[prompts]]
        return rows.flatten(0, 1)

    @contextmanager
    def _hooked(self, layer: int) -> Iterator[None]:
        with ExitStack() as stack:
            attention = self.attentions[layer]
            if attention is not None and self.running.inside < len(self.running.prompts):
                stack.enter_context(replaced([attention], [self._attend(attention)]))
            for module in self.ffn_inputs[layer]:
                stack.callback(module.register_forward_pre_hook(self._enter_ffn).remove)
            site = self.model.ffn_outputs[layer]
            stack.callback(site.register_forward_pre_hook(self._put_rows).remove)
            stack.callback(site.register_forward_hook(self._leave_ffn).remove)
            yield

    def _attend(self, attention: nn.Module) -> Callable[..., Any]:
        """The attention module's forward, for rows that entered earlier; what it gives entering rows is known."""
        inner, running, recording = attention.forward, self.running, self.recording

        def forward(*args: Any, **kwargs: Any) -> Any:
            clean = recording.attended[running.layer]
            assert clean is not None
            known, inside = clean[running.prompts[running.inside :]], running.inside
            if not inside:
                return pack(known, recording.attention_packs[running.layer])
            all_rows = (len(running.prompts), *known.shape[1:])
            positional, named = recording.calls[running.layer]
            shared = {id(given) for given in (*positional, *named.values())}  # of one row, whatever their shape

            def cut(given: Any) -> Any:
                by_row = isinstance(given, Tensor) and given.shape == all_rows and id(given) not in shared
                return given[:inside] if by_row else given

            output = inner(*map(cut, args), **{name: cut(given) for name, given in kwargs.items()})
            if isinstance(output, tuple):
                return (torch.cat([output[0], known]), *output[1:])
            return torch.cat([output, known])

        return forward

    def _enter_ffn(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the feed-forward block: keep only the tokens that must be computed, ``[token, hidden]``.

        Entering rows bring their activation with them, and in the last block only the answer position matters.
        """
        states, running = inputs[0], self.running
        kept = states.reshape(len(running.prompts), -1, states.shape[-1])[: running.inside]
        if running.layer == self.model.n_layers - 1:
            kept = kept[torch.arange(running.inside, device=kept.device), self._at[: running.inside]]
        return (kept.reshape(-1, kept.shape[-1]), *inputs[1:])

    def _put_rows(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the output linear: the activations that were computed, then those of the entering rows."""
        vectors, running = inputs[0], self.running
        if self.ffn_inputs[running.layer]:
            if running.layer in running.later:
                vectors = vectors.clone(memory_format=torch.contiguous_format)
                here = vectors.view(running.inside, -1, vectors.shape[-1])
                self._scale(here, torch.zeros_like(self._at) if here.shape[1] == 1 else self._at)
            return (torch.cat([vectors, running.entering]), *inputs[1:])
        full = vectors.reshape(len(running.prompts), -1, vectors.shape[-1]).clone()
        entering = torch.arange(running.inside, len(full), device=full.device)
        if len(running.entering) == len(entering):
            full[entering, self._at[running.inside :]] = running.entering
        else:
            full[entering] = running.entering.view(len(entering), *full.shape[1:])
        self._scale(full, self._at)
        return (full.view(vectors.shape), *inputs[1:])

    def _scale(self, vectors: Tensor, at: Tensor) -> None:
        """Change, in ``vectors [row, token, neuron]``, what rows that entered earlier have chosen in this layer."""
        if self.running.layer in self.running.later:
            rows, neurons, factors, shifts = self.running.later[self.running.layer]
            vectors[rows, at[rows], neurons] = vectors[rows, at[rows], neurons] * factors + shifts

    def _leave_ffn(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """After the output linear: back to ``[row, token, hidden]``, with clean values where nothing has changed."""
        running, recording = self.running, self.recording
        if not self.ffn_inputs[running.layer]:
            return None
        inside, tokens, width = running.inside, recording.inputs[0].shape[1], output.shape[-1]
        if tokens == 1 or running.layer == self.model.n_layers - 1:
            full = output[:, None].repeat(1, tokens, 1)  # some blocks write into it
        else:
            old, own = output[: inside * tokens], output[inside * tokens :]
            if not self.whole:
                new = recording.written[running.layer][running.prompts[inside:]]
                own = new.scatter(1, self._at[inside:, None, None].expand(-1, 1, width), own[:, None])
            full = torch.cat([old.view(inside, tokens, width), own.view(-1, tokens, width)])
        return full.reshape(-1, width) if recording.flat else full

    @property
    def _at(self) -> Tensor:
        """Answer position of each running row within the tokens it has."""
        at = self.positions[self.running.prompts]
        return torch.zeros_like(at) if self.causal else at


def _for_rows(kwargs: dict[str, Any], n_rows: int) -> dict[str, Any]:
    """A block's arguments for a batch of one, as they are for ``n_rows``: all broadcast but ALiBi's, which is flat."""
    alibi = kwargs.get("alibi")
    return kwargs if alibi is None else kwargs | {"alibi": alibi.repeat(n_rows, *[1] * (alibi.ndim - 1))}
