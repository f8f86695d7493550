"""Whole states of a token: the hidden state behind a layer, and what its feed-forward block and its attention write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kn_attrib.errors import ModelError
from kn_attrib.models.anatomy import attention_outputs, find_blocks
from kn_attrib.models.neuron_model import Edit, NeuronModel

State = Literal["hidden", "ffn", "attention"]
STATES: tuple[State, ...] = get_args(State)
"""``hidden``: what a layer's block gives; ``ffn``, ``attention``: what the output linear of either writes, before any
norm behind it."""
Recorded = Mapping[State, list[Tensor]]
"""Per layer ``[row, token, hidden]``."""


class StatePoints:
    """Where a model's states can be read and changed.

    Parameters
    ----------
    states : those that are to be found.

    Raises
    ------
    ModelError : an encoder-decoder, layers that share a module, or attention whose output linear is not known.
    """

    def __init__(self, model: NeuronModel, states: tuple[State, ...] = STATES) -> None:
        if model.kind == "encoder-decoder":
            raise ModelError(
                f"{model.name} is an encoder-decoder: its subject is read in one stack, the answer given in another. "
                "Tracing follows states through one stack; give it a causal or a masked model."
            )
        try:
            blocks = find_blocks(model)
        except ModelError as error:
            raise ModelError(f"{model.name} has no state for each layer that could be restored: {error}.") from error
        self.model = model
        self.modules: dict[State, list[nn.Module]] = {"hidden": blocks, "ffn": model.ffn_outputs}
        if "attention" in states:
            self.modules["attention"] = attention_outputs(model)

    @property
    def states(self) -> tuple[State, ...]:
        """The states that can be read."""
        return tuple(self.modules)

    @contextmanager
    def edited(self, edits: Mapping[tuple[State, int], Edit], rows: int) -> Iterator[None]:
        """While active, states of a layer ``[row, token, hidden]`` pass through their edit; undone on any exit.

        Parameters
        ----------
        edits : (state, layer) -> function of ``[row, token, hidden]`` that does not write into it.
        rows : of the passes that are run.
        """
        with ExitStack() as stack:
            for (state, layer), edit in edits.items():
                stack.callback(self.modules[state][layer].register_forward_hook(_hook(edit, rows)).remove)
            yield

    def record(self, run: Callable[[], Tensor], rows: int) -> tuple[Recorded, Tensor]:
        """All states of a pass, and what ``run`` returns."""
        kept: dict[tuple[State, int], Tensor] = {}

        def keep(state: State, layer: int) -> Edit:
            return lambda states: kept.setdefault((state, layer), states)

        edits = {(state, layer): keep(state, layer) for state in self.states for layer in range(self.model.n_layers)}
        with torch.no_grad(), self.edited(edits, rows):
            found = run()
        return {state: [kept[state, layer] for layer in range(self.model.n_layers)] for state in self.states}, found


def _hook(edit: Edit, rows: int) -> Callable[..., Any]:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        edited = edit(states.reshape(rows, -1, states.shape[-1])).reshape(states.shape)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    return hook
