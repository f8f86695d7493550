"""PyTorch's defaults around a call, whatever its caller has set: the same call gives the same numbers everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu")

_entered: ContextVar[bool] = ContextVar("entered", default=False)
"""Whether a call is running whose precision of matrix products has been settled: calls inside it keep that one."""


@contextmanager
def torch_defaults(gradients: bool = True) -> Iterator[None]:
    """While active, PyTorch is as it is when a program starts; undone on any exit, may be nested, also a decorator.

    Inference mode and autocast are off, the default dtype is float32 and the default device the CPU. Matrix products
    of float32 are float32 throughout, if this is not inside another such context. Deterministic algorithms stay as the
    caller wants them.

    Parameters
    ----------
    gradients : whether gradients are recorded whatever the caller says; if not, they are where he records them.
    """
    record = gradients or torch.is_grad_enabled()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        # After inference mode, the leaving of which records gradients.
        if torch.is_grad_enabled() != record:
            stack.enter_context(torch.set_grad_enabled(record))
        for device in AUTOCAST_DEVICES:
            if _autocasts(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if not _entered.get():
            stack.callback(_entered.reset, _entered.set(True))
            stack.enter_context(matmul_precision("highest"))
        yield


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """While active, float32 matrix products run at a precision, in the words of PyTorch.

    Parameters
    ----------
    precision : ``"highest"``, ``"high"`` or ``"medium"``.
    """
    before, settings = asked_precision(), _settings_of_backends()
    if before == precision == "highest" and all(value in ("ieee", "none") for _, value in settings):
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before or "highest")
        for backend, value in settings:
            if backend.fp32_precision != value:
                backend.fp32_precision = value


def _autocasts(device: str) -> bool:
    try:
        return torch.is_autocast_enabled(device)
    except RuntimeError:  # this PyTorch knows no autocast for such devices
        return False


def asked_precision() -> str | None:
    """The precision of matrix products; None where the caller has set it backend by backend."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # PyTorch does not let its two interfaces be mixed
        return None


def _settings_of_backends() -> list[tuple[Any, str]]:
    """What each backend's matrix products are set to, for PyTorch 2.9 and later."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return [(backend, backend.fp32_precision) for backend in backends if hasattr(backend, "fp32_precision")]
