"""One block of a wave: rows that entered before run through it whole, rows of its own layer enter in its middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.forward.clean_pass import Call, CleanPass, RunningRows
from kn_attrib.forward.tail import pack, replaced
from kn_attrib.models.neuron_model import NeuronModel


@dataclass(frozen=True)
class WaveBlock:
    """The block that a wave's rows are in: hooks put rows in, and leave out what the clean pass knows of them.

    Parameters
    ----------
    model, blocks : the model, and the block of each of its layers.
    ffn_inputs : per layer the modules that read what its feed-forward block reads; empty where none is seen.
    attentions : per layer the attention module that rows need not run through where they enter, if there is one.
    clean : the clean pass over the prompts that rows refer to.
    running : the rows that run, as far as they have come.
    positions : ``[prompt]``, the answer positions.
    whole : rows are ``[row, token, neuron]`` and replace a layer's activations at all tokens.
    causal : only the answer token of a row can change.
    """

    model: NeuronModel
    blocks: Sequence[nn.Module]
    ffn_inputs: Sequence[Sequence[nn.Module]]
    attentions: Sequence[nn.Module | None]
    clean: CleanPass
    running: RunningRows
    positions: Tensor
    whole: bool
    causal: bool

    def run(self, layer: int, hidden: Tensor, rows: Tensor, prompts: Tensor) -> Tensor:
        """Hidden states behind a block, ``[row, token, hidden]``.

        Parameters
        ----------
        hidden : those before it, of the rows that entered in earlier layers.
        rows : activations of the rows that enter here.
        prompts : ``[row]``, the prompts of all of them.
        """
        running = self.running
        running.layer, running.inside, running.prompts = layer, len(hidden), prompts
        running.entering = self._entering(rows)
        states = torch.cat([hidden, self.clean.inputs[layer][running.entering_prompts]])
        args, kwargs = self._arguments(layer, prompts)
        with self._hooked():
            output = self.blocks[layer](states, *args, **kwargs)
        behind: Tensor = output[0] if isinstance(output, tuple) else output
        return behind

    def _arguments(self, layer: int, prompts: Tensor) -> Call:
        """The block's further arguments, as they are for rows of these prompts."""
        args, kwargs = self.clean.calls[layer]
        if not self.clean.by_prompt:
            return args, for_rows(kwargs, len(prompts))
        n_prompts = len(self.clean.activations)
        by_row = partial(_taken, prompts=prompts, n_prompts=n_prompts)
        return tuple(map(by_row, args)), {name: by_row(given) for name, given in kwargs.items()}

    def _entering(self, rows: Tensor) -> Tensor:
        """What rows bring into the block, token by token: ``[token, neuron]``."""
        if not self.whole:
            return rows
        if self._is_last:
            return rows[torch.arange(len(rows), device=rows.device), self.positions[self.running.entering_prompts]]
        return rows.flatten(0, 1)

    @property
    def _is_last(self) -> bool:
        """Behind the last block only the answer position matters."""
        return self.running.layer == self.model.n_layers - 1

    @property
    def _at(self) -> Tensor:
        """Answer position of each running row within the tokens it has."""
        at = self.positions[self.running.prompts]
        return torch.zeros_like(at) if self.causal else at

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        layer = self.running.layer
        attention = self.attentions[layer]
        site = self.model.ffn_outputs[layer]
        with ExitStack() as stack:
            if attention is not None and len(self.running.entering_prompts):
                stack.enter_context(replaced([attention], [self._attend(attention)]))
            for module in self.ffn_inputs[layer]:
                stack.callback(module.register_forward_pre_hook(self._enter_ffn).remove)
            stack.callback(site.register_forward_pre_hook(self._put_rows).remove)
            stack.callback(site.register_forward_hook(self._leave_ffn).remove)
            yield

    def _attend(self, attention: nn.Module) -> Callable[..., Any]:
        """The attention module's forward, for rows that entered earlier; what it gives entering rows is known."""
        inner, layer, inside = attention.forward, self.running.layer, self.running.inside

        def forward(*args: Any, **kwargs: Any) -> Any:
            clean = self.clean.attended[layer]
            assert clean is not None
            known = clean[self.running.entering_prompts]
            if not inside:
                return pack(known, self.clean.attention_packs[layer])
            all_rows = (len(self.running.prompts), *known.shape[1:])
            positional, named = self.clean.calls[layer]
            shared = {id(given) for given in (*positional, *named.values())}  # of one row, whatever their shape

            def cut(given: Any) -> Any:
                if self.clean.by_prompt:
                    return _taken(given, torch.arange(inside, device=known.device), len(self.running.prompts))
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
        states, inside = inputs[0], self.running.inside
        kept = states.reshape(len(self.running.prompts), -1, states.shape[-1])[:inside]
        if self._is_last:
            kept = kept[torch.arange(inside, device=kept.device), self._at[:inside]]
        return (kept.reshape(-1, kept.shape[-1]), *inputs[1:])

    def _put_rows(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before the output linear: the activations that were computed, then those of the entering rows."""
        put = self._appended if self.ffn_inputs[self.running.layer] else self._written_over
        return (put(inputs[0]), *inputs[1:])

    def _appended(self, vectors: Tensor) -> Tensor:
        """Entering rows behind the vectors, which `_enter_ffn` had made of the others' tokens alone."""
        running = self.running
        if running.layer in running.later:
            vectors = vectors.clone(memory_format=torch.contiguous_format)
            here = vectors.view(running.inside, -1, vectors.shape[-1])
            self._scale(here, torch.zeros_like(self._at) if here.shape[1] == 1 else self._at)
        if running.added is not None and running.inside:
            here = vectors.view(running.inside, -1, vectors.shape[-1])
            vectors = self._plus(here, torch.zeros_like(self._at) if here.shape[1] == 1 else self._at).view_as(vectors)
        return torch.cat([vectors, running.entering])

    def _written_over(self, vectors: Tensor) -> Tensor:
        """Entering rows in the place of vectors that were made of all tokens of all rows."""
        running = self.running
        full = vectors.reshape(len(running.prompts), -1, vectors.shape[-1]).clone()
        entering = torch.arange(running.inside, len(full), device=full.device)
        if len(running.entering) == len(entering):
            full[entering, self._at[running.inside :]] = running.entering
        else:
            full[entering] = running.entering.view(len(entering), *full.shape[1:])
        self._scale(full, self._at)
        if running.added is not None and running.inside:
            full = self._plus(full, self._at)
        return full.view(vectors.shape)

    def _scale(self, vectors: Tensor, at: Tensor) -> None:
        """Change, in ``vectors [row, token, neuron]``, what rows that entered earlier have chosen in this layer."""
        if self.running.layer in self.running.later:
            rows, neurons, factors, shifts = self.running.later[self.running.layer]
            vectors[rows, at[rows], neurons] = vectors[rows, at[rows], neurons] * factors + shifts

    def _plus(self, vectors: Tensor, at: Tensor) -> Tensor:
        """``vectors [row, token, neuron]`` with what is to be added in this layer; differentiable."""
        assert self.running.added is not None
        rows = torch.arange(len(vectors), device=vectors.device)
        return vectors.index_put((rows, at), self.running.added[:, self.running.layer], accumulate=True)

    def _leave_ffn(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """After the output linear: back to ``[row, token, hidden]``, with clean values where nothing has changed."""
        running = self.running
        if not self.ffn_inputs[running.layer]:
            return None
        tokens = self.clean.inputs[0].shape[1]
        width = output.shape[-1]
        if tokens == 1 or self._is_last:
            full = output[:, None].repeat(1, tokens, 1)  # some blocks write into it
        else:
            n_earlier = running.inside * tokens
            earlier, own = output[:n_earlier], output[n_earlier:]
            if not self.whole:
                answers = self._at[running.inside :, None, None].expand(-1, 1, width)
                clean = self.clean.written[running.layer][running.entering_prompts]
                own = clean.scatter(1, answers, own[:, None])
            full = torch.cat([earlier.view(running.inside, tokens, width), own.view(-1, tokens, width)])
        return full.reshape(-1, width) if self.clean.flat else full


def _taken(given: Any, prompts: Tensor, n_prompts: int) -> Any:
    """Of tensors that have an entry for each prompt those of some; rotations are pairs of such tensors."""
    if isinstance(given, tuple):
        return tuple(_taken(each, prompts, n_prompts) for each in given)
    return given[prompts] if isinstance(given, Tensor) and given.shape[:1] == (n_prompts,) else given


def for_rows(kwargs: dict[str, Any], n_rows: int) -> dict[str, Any]:
    """A block's arguments for a batch of one, as they are for ``n_rows``: all broadcast but ALiBi's, which is flat."""
    alibi = kwargs.get("alibi")
    if alibi is None:
        return kwargs
    return kwargs | {"alibi": alibi.repeat(n_rows, *[1] * (alibi.ndim - 1))}
