"""Interrupting a call in the middle: at any operation of PyTorch, wherever that is in the code."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kn_attrib import NeuronModel
from kn_attrib.models.neuron_model import digest_of


class InterruptAt(TorchDispatchMode):
    """While active, operations are counted, and a KeyboardInterrupt comes instead of one of them.

    Parameters
    ----------
    number : of that operation, from 1; none if not given.
    """

    def __init__(self, number: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = number
        self.seen: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        if self.seen == self.number:
            raise KeyboardInterrupt
        return function(*args, **(kwargs or {}))


def operations_of(call: Callable[[], object]) -> int:
    """How many operations a call takes."""
    counting = InterruptAt()
    with counting:
        call()
    return counting.seen


def interrupt(call: Callable[[], object], number: int) -> bool:
    """Run a call that is interrupted at an operation; whether it was."""
    try:
        with InterruptAt(number):
            call()
    except KeyboardInterrupt:
        return True
    return False


def state_of(model: NeuronModel) -> tuple[Any, ...]:
    """Weights, flags and hooks of the wrapped model, and the random numbers and settings of the process."""
    modules = [*model.model.modules(), *model.hook_points]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules)
    forwards = sum("forward" in vars(m) for m in modules)
    flags = tuple(m.training for m in modules), tuple(p.requires_grad for p in model.model.parameters())
    gradients = all(p.grad is None for p in model.model.parameters())
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    drawn = torch.get_rng_state().tolist(), numpy["state"]["pos"], numpy["state"]["key"].tolist(), random.getstate()
    settings = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
    return digest_of(model.model), hooks, forwards, flags, gradients, drawn, settings
