"""One clean pass over a batch, kept so that waves can start in the middle of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from kn_attrib.forward.tail import pack, replaced
from kn_attrib.models.anatomy import find_attention
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.passes import arguments

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class RunningRows:
    """Which rows run through a block: first ``inside`` rows from earlier layers, then those that enter here.

    Attributes
    ----------
    layer, inside : the block, and the number of rows that entered before it.
    entering : ``[row, neuron]``, activations of the rows that enter.
    prompts : ``[row]``, the prompt of every running row.
    added : ``[row, layer, neuron]``, what is added to the activations of rows that entered in layer 0; or nothing.
    later : layer -> rows, neurons, and the factors and shifts that change these activations where they then stand.
    """

    layer: int = 0
    inside: int = 0
    entering: Tensor = field(default_factory=lambda: torch.empty(0))
    prompts: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    added: Tensor | None = None
    later: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=dict)

    @property
    def entering_prompts(self) -> Tensor:
        """The prompts of the rows that enter."""
        return self.prompts[self.inside :]


@dataclass(frozen=True)
class CleanPass:
    """What one clean pass over a batch leaves behind.

    Attributes
    ----------
    activations : ``[prompt, layer, neuron]`` at the answer position.
    final : ``[prompt, …]``, what the head makes its answer of.
    inputs : per layer the block's input, ``[prompt, token, hidden]``; the answer token alone in causal models.
    written : per layer what the feed-forward block writes, as ``inputs``.
    attended : per layer what its attention module gives, as ``inputs``; None where no such module is seen.
    flat : the feed-forward block sees ``[prompt · token, hidden]``, as OPT's does.
    calls : per layer the block's further arguments, for a batch of one.
    by_prompt : the further arguments are for all prompts instead, one after another.
    packs, attention_packs : number of values in each block's (attention module's) output, 0 for a bare tensor.
    """

    activations: Tensor
    final: Tensor
    inputs: list[Tensor]
    written: list[Tensor]
    attended: list[Tensor | None]
    flat: bool
    calls: list[Call]
    packs: list[int]
    attention_packs: list[int]
    by_prompt: bool = False

    def written_at(self, positions: Tensor) -> Tensor:
        """What feed-forward blocks write at the answer positions: ``[prompt, layer, hidden]``."""
        rows = torch.arange(len(positions), device=positions.device)
        return torch.stack([each[rows, positions if each.shape[1] > 1 else 0] for each in self.written], dim=1)


class PrefixLayer(DynamicLayer):
    """One layer's keys and values before the answer: read, extended by each row's own, never written."""

    def __init__(self, keys: Tensor, values: Tensor, running: RunningRows) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.running = keys, values, running

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the rows' prompts before the answer, then the rows' own."""
        assert self.keys is not None
        assert self.values is not None
        return self._extend(self.keys, key_states), self._extend(self.values, value_states)

    def _extend(self, prefix: Tensor, own: Tensor) -> Tensor:
        prompts = self.running.prompts[: len(own)]
        before = prefix.expand(len(own), -1, -1, -1) if len(prefix) == 1 else prefix[prompts]
        return torch.cat([before, own], dim=-2)


class CleanPassRecorder:
    """Hooks that keep each block's input and neurons while the model runs.

    Parameters
    ----------
    prefix : blocks are to be given the last tokens alone, and keys and values of the tokens before them.
    whole : these are more than the answer token: states are kept at all tokens.
    """

    def __init__(self, model: NeuronModel, blocks: Sequence[nn.Module], prefix: bool, whole: bool = False) -> None:
        self.model, self.blocks, self.prefix = model, blocks, prefix
        self.kept = slice(-1, None) if prefix and not whole else slice(None)
        self.inputs: dict[int, Tensor] = {}
        self.written: dict[int, Tensor] = {}
        self.activations: dict[int, Tensor] = {}
        self.attended: dict[int, Tensor] = {}
        self.packs: dict[int, int] = {}
        self.attention_packs: dict[int, int] = {}
        self.flat = False

    def record(self, inputs: dict[str, Tensor], positions: Tensor, running: RunningRows) -> CleanPass:
        """Run prompts once: ``input_ids [prompt, token]`` or ``inputs_embeds [prompt, token, hidden]``."""
        found, cache = self.run(inputs, positions)
        prefix = None if cache is None else read_only(cache, len(next(iter(inputs.values()))[0]) - 1, running)
        given: dict[str, Any] = arguments(self.model.kind, {name: each[:1] for name, each in inputs.items()})
        if prefix is not None:  # the mask still spans all tokens
            given |= {name: values[:1, -1:] for name, values in inputs.items()}
        return replace(found, calls=self.calls_of(given, prefix))

    def run(self, inputs: dict[str, Tensor], positions: Tensor) -> tuple[CleanPass, DynamicCache | None]:
        """The clean pass without its blocks' further arguments, and the keys and values that it leaves."""
        ids = next(iter(inputs.values()))
        n_prompts, n_tokens = ids.shape[:2]
        cache = DynamicCache() if self.prefix else None
        extra = self._cached(cache)
        with torch.no_grad(), self.model.running(positions), self._listening():
            final = self.model.head.final(
                lambda: self.model.model(**arguments(self.model.kind, inputs), **extra), positions, n_tokens
            )
        layers = range(len(self.blocks))
        found = CleanPass(
            activations=torch.stack([self.activations[layer] for layer in layers], dim=1),
            final=final,
            inputs=[self.inputs[layer][:, self.kept] for layer in layers],
            written=[self.written[layer].view(n_prompts, n_tokens, -1)[:, self.kept] for layer in layers],
            attended=[self._attended(layer) for layer in layers],
            flat=self.flat,
            calls=[],
            packs=[self.packs[layer] for layer in layers],
            attention_packs=[self.attention_packs.get(layer, 0) for layer in layers],
        )
        return found, cache

    def _attended(self, layer: int) -> Tensor | None:
        found = self.attended.get(layer)
        if found is None or found.shape != self.inputs[layer].shape:
            return None
        return found[:, self.kept]

    def _cached(self, cache: Cache | None) -> dict[str, Any]:
        """The model's arguments about keys and values."""
        if self.model.kind != "causal":
            return {}
        return {"past_key_values": cache, "use_cache": cache is not None}

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, (block, site) in enumerate(zip(self.blocks, self.model.ffn_outputs, strict=True)):
                stack.callback(block.register_forward_hook(self._on_block(layer), with_kwargs=True).remove)
                stack.callback(site.register_forward_hook(self._on_site(layer)).remove)
                attention = find_attention(block, site)
                if attention is not None:
                    stack.callback(attention.register_forward_hook(self._on_attention(layer)).remove)
            yield

    def _on_block(self, layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self.inputs[layer] = args[0] if args else kwargs["hidden_states"]
            self.packs[layer] = len(output) if isinstance(output, tuple) else 0

        return hook

    def _on_attention(self, layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self.attended[layer] = output[0] if isinstance(output, tuple) else output
            self.attention_packs[layer] = len(output) if isinstance(output, tuple) else 0

        return hook

    def _on_site(self, layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            vectors = args[0]
            self.flat = vectors.ndim == 2
            by_row = vectors.view(len(self.model.positions), -1, vectors.shape[-1])
            self.activations[layer] = self.model.at_answer(by_row)
            self.written[layer] = output

        return hook

    def calls_of(self, given: dict[str, Any], prefix: Cache | None) -> list[Call]:
        """What the model hands to each block besides hidden states (masks, rotations, …), without running any.

        Parameters
        ----------
        given : the model's arguments, but for those about keys and values.
        prefix : keys and values before the answer token.
        """
        calls: dict[int, Call] = {}

        def listen(layer: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                states = args[0] if args else kwargs.pop("hidden_states")
                calls[layer] = (args[1:], kwargs)
                return pack(states, self.packs[layer])

            return forward

        positions = torch.zeros(len(next(iter(given.values()))), dtype=torch.long, device=self.model.device)
        listeners = [listen(layer) for layer in range(len(self.blocks))]
        with torch.no_grad(), self.model.running(positions), replaced(self.blocks, listeners):
            self.model.model(**given, **self._cached(prefix))
        return [calls[layer] for layer in range(len(self.blocks))]


def read_only(cache: Cache, n_before: int, running: RunningRows) -> Cache:
    """Keys and values of the first ``n_before`` tokens, for blocks that are given the later ones."""
    layers: list[Any] = []
    for held in cache.layers:
        recorded: Any = held
        layers.append(PrefixLayer(recorded.keys[..., :n_before, :], recorded.values[..., :n_before, :], running))
    return Cache(layers)
