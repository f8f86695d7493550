"""A model, PyTorch and the random numbers of the process at one time, to see what has become of them later.

A method has the model in its hands. One that leaves a hook, changes a weight or draws random numbers spoils what is
measured of every method after it, and nothing in its own scores shows that.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kn_attrib.models.neuron_model import NeuronModel

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
SAMPLED = 64
"""Values of each weight that are looked at after each batch."""


class ModelState:
    """A model and the process around it as they are now, to be held against what they are later.

    Parameters
    ----------
    model : what is watched.
    thorough : look at every value of the weights, and at random numbers; else at some values of each weight.
    """

    def __init__(self, model: NeuronModel, thorough: bool) -> None:
        modules = {id(module): module for module in (*model.model.modules(), *model.hook_points)}
        self.modules = list(modules.values())
        self.thorough = thorough
        self.hooks = [{name: dict(getattr(module, name)) for name in HOOKS} for module in self.modules]
        self.forwards = [vars(module).get("forward") for module in self.modules]
        self.training = [module.training for module in self.modules]
        self.owned = [(dict(module._parameters), dict(module._modules)) for module in self.modules]
        self.weights = [weight for weight in model.model.parameters() if not weight.is_meta]
        # These share the weights' memory, so they know it still where a weight is given another.
        self.data = [weight.detach() for weight in self.weights]
        self.frozen = [weight.requires_grad for weight in self.weights]
        self.gradients = [weight.grad for weight in self.weights]
        self.values = self._look()
        self.world = _World(random_too=thorough)

    def _look(self) -> list[Tensor]:
        with torch.no_grad():
            return [(_bits if self.thorough else _sample)(each) for each in self.data]

    def put_back(self) -> tuple[list[str], str]:
        """What has been put back, and what could not be; nothing, and an empty text, if nothing was changed."""
        mended = [what for what in (self._hooks(), self._modes(), self._parts(), self._memory()) if what]
        mended += [what for what in (self._gradients(), *self.world.put_back()) if what]
        # Not the memory's version: it counts writes, and what is undone was written too.
        spoilt = sum(not torch.equal(now, before) for now, before in zip(self._look(), self.values, strict=True))
        return mended, f"{spoilt} of {len(self.weights)} weights have other values" if spoilt else ""

    def _hooks(self) -> str:
        left = 0
        for module, before, forward in zip(self.modules, self.hooks, self.forwards, strict=True):
            for name, hooks in before.items():
                now = getattr(module, name)
                if list(now) != list(hooks):
                    left += max(1, len(set(now) - set(hooks)))
                    now.clear()
                    now.update(hooks)
            if vars(module).get("forward") is not forward:
                left += 1
                vars(module).pop("forward", None)
                if forward is not None:
                    vars(module)["forward"] = forward
        return f"{left} hooks or replaced forwards on modules" if left else ""

    def _modes(self) -> str:
        changed = [each for each, was in zip(self.modules, self.training, strict=True) if each.training != was]
        for module, training in zip(self.modules, self.training, strict=True):
            module.training = training
        return f"train mode of {len(changed)} modules" if changed else ""

    def _parts(self) -> str:
        changed = 0
        for module, (parameters, modules) in zip(self.modules, self.owned, strict=True):
            for now, before in ((module._parameters, parameters), (module._modules, modules)):
                if now.keys() != before.keys() or any(now[name] is not before[name] for name in before):
                    changed += 1
                    now.clear()
                    now.update(before)  # type: ignore[arg-type]
        return f"weights or parts of {changed} modules replaced" if changed else ""

    def _memory(self) -> str:
        changed = 0
        for weight, data in zip(self.weights, self.data, strict=True):
            if weight.data_ptr() != data.data_ptr() or weight.dtype != data.dtype or weight.shape != data.shape:
                changed += 1
                weight.data = data
        return f"type, device or memory of {changed} weights" if changed else ""

    def _gradients(self) -> str:
        changed = 0
        for weight, recorded, gradient in zip(self.weights, self.frozen, self.gradients, strict=True):
            if weight.requires_grad != recorded or weight.grad is not gradient:
                changed += 1
                weight.requires_grad_(recorded)
                weight.grad = gradient
        return f"gradients of {changed} weights, or whether they are recorded" if changed else ""


class _World:
    """What PyTorch and the random numbers of the process are set to."""

    def __init__(self, random_too: bool) -> None:
        self.random_too = random_too
        self.gradients = torch.is_grad_enabled()
        self.dtype = torch.get_default_dtype()
        self.torch_random = torch.get_rng_state()
        self.cuda_random = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.numpy_random = np.random.get_state(legacy=False)  # noqa: NPY002  # the global one is what is watched
        self.python_random = random.getstate()

    def put_back(self) -> list[str]:
        found = []
        if torch.is_grad_enabled() != self.gradients:
            found.append("whether gradients are recorded")
            torch.set_grad_enabled(self.gradients)
        if torch.get_default_dtype() != self.dtype:
            found.append("PyTorch's default dtype")
            torch.set_default_dtype(self.dtype)
        if self.random_too and self._random():
            found.append("the global random numbers (give the method a seed, and a generator made from it)")
        return found

    def _random(self) -> bool:
        drawn = False
        if not torch.equal(torch.get_rng_state(), self.torch_random):
            torch.set_rng_state(self.torch_random)
            drawn = True
        for device, state in enumerate(self.cuda_random):
            if not torch.equal(torch.cuda.get_rng_state(device), state):
                torch.cuda.set_rng_state(state, device)
                drawn = True
        now = np.random.get_state(legacy=False)  # noqa: NPY002
        if (
            now["state"]["pos"] != self.numpy_random["state"]["pos"]
            or (now["state"]["key"] != self.numpy_random["state"]["key"]).any()
        ):
            np.random.set_state(self.numpy_random)  # noqa: NPY002
            drawn = True
        if random.getstate() != self.python_random:
            random.setstate(self.python_random)
            drawn = True
        return drawn


def _sample(weight: Tensor) -> Tensor:
    """Some values of a weight, evenly spread."""
    flat = weight.reshape(-1) if weight.is_contiguous() else weight.flatten()
    return flat[:: max(1, flat.numel() // SAMPLED)].clone()


def _bits(weight: Tensor) -> Tensor:
    """A sum over all bits of a weight, which any change of a value changes."""
    flat = weight.contiguous().reshape(-1).view(torch.uint8)
    wide = {0: torch.int64, 4: torch.int32}.get(flat.numel() % 8, torch.uint8)
    return flat.view(wide).sum(dtype=torch.int64)


@contextmanager
def staying() -> Iterator[None]:
    """While active, ``os._exit`` raises SystemExit in this process instead of ending it without a word."""
    leave: Callable[[int], Any] = os._exit
    own = os.getpid()

    def stay(status: int) -> None:
        if os.getpid() != own:  # a process that was forked has to end this way
            leave(status)
        raise SystemExit(status)

    os._exit = stay  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave  # type: ignore[assignment]
