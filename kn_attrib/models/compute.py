"""How a model is run: which implementation, how much memory, matrix products at which precision and by whom."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kn_attrib.errors import ConfigError, check_kind, unknown
from kn_attrib.models.products import HAS_ONEDNN, PRODUCTS
from kn_attrib.models.torch_defaults import matmul_precision, torch_defaults

Engine = Literal["auto", "plain"]
PRECISIONS = {"highest": "highest", "tf32": "high", "medium": "medium"}
SHARE_OF_FREE_MEMORY = 0.4
PRODUCTS_VARIABLE = "KN_ATTRIB_PRODUCTS"


@dataclass(frozen=True)
class Compute:
    """Settings of how a model is run.

    Parameters
    ----------
    engine : ``"auto"`` (the wave wherever its guards pass) or ``"plain"``.
    memory_budget : most bytes that one chunk of rows may take; default 40 % of what is free when asked.
    precision : of float32 matrix products. ``"highest"`` is float32 throughout. ``"tf32"`` rounds factors to 10 bits
        on GPUs that can. ``"medium"`` lets PyTorch choose a faster kernel: on CPUs without matrix units (AMX) this
        is another library's float32, faster and as exact; on others and on GPUs it is bfloat16-like, good for
        gradients and poor for single-neuron ablations. The head and softmax stay in float32 in either.
    products : the library of large float32 products of frozen linears on CPUs. ``"auto"`` times PyTorch's own and
        oneDNN's in use and takes the faster for each class of shapes, so that the last digits may change from run to
        run; ``"pytorch"`` and ``"onednn"`` fix it. Under PyTorch's deterministic algorithms ``"auto"`` is PyTorch's.
        The environment's `KN_ATTRIB_PRODUCTS` says what ``"auto"`` is in a process as a whole.

    Raises
    ------
    ConfigError : unknown engine, precision or products, oneDNN where there is none, or a budget that is not positive.
    """

    engine: Engine = "auto"
    memory_budget: int | None = None
    precision: str = "highest"
    products: str = "auto"

    def __post_init__(self) -> None:
        check_kind("memory_budget", self.memory_budget, int | None)
        if self.engine not in ("auto", "plain"):
            raise ConfigError(unknown("engine", str(self.engine), ("auto", "plain")))
        if self.precision not in PRECISIONS:
            raise ConfigError(unknown("precision", str(self.precision), PRECISIONS))
        if self.products == "auto":
            object.__setattr__(self, "products", os.environ.get(PRODUCTS_VARIABLE, "auto"))
        if self.products not in PRODUCTS:
            raise ConfigError(unknown("products", str(self.products), PRODUCTS))
        if self.products == "onednn" and not HAS_ONEDNN:
            raise ConfigError("products is 'onednn', which this PyTorch is built without; use 'auto' or 'pytorch'.")
        if self.memory_budget is not None and self.memory_budget <= 0:
            raise ConfigError(f"memory_budget is {self.memory_budget}; expected a positive number of bytes.")

    def budget(self, device: torch.device) -> int:
        """Bytes that one chunk may take on a device now."""
        return self.memory_budget or int(SHARE_OF_FREE_MEMORY * free_memory(device))


def free_memory(device: torch.device) -> int:
    """Bytes free on a device; on the CPU what the system calls available."""
    if device.type == "cuda":
        # What PyTorch holds but does not use is free too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  # not a file on a disk
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return pages // 2


@contextmanager
def computing(precision: str, head: nn.Module | None) -> Iterator[None]:
    """While active, PyTorch is at its defaults, float32 matrix products run at a precision, the head's in float32."""
    with ExitStack() as stack:
        stack.enter_context(torch_defaults())
        stack.enter_context(matmul_precision(PRECISIONS[precision]))
        if precision == "highest":
            yield
            return
        # The CPU's fused attention kernel is many times slower in these modes; its parts are not.
        if not torch.cuda.is_available():
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if head is not None and _is_lossy(head):
            stack.callback(head.register_forward_pre_hook(SetPrecision("highest")).remove)
            stack.callback(head.register_forward_hook(SetPrecision(PRECISIONS[precision])).remove)
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """While active, float32 matrix products are float32 throughout."""
    with matmul_precision("highest"):
        yield


def _is_lossy(module: nn.Module) -> bool:
    """Whether a lower precision rounds here: on GPUs and on CPUs with matrix units."""
    on_gpu = any(parameter.is_cuda for parameter in module.parameters())
    return on_gpu or bool(torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class SetPrecision:
    """A hook that sets the precision of float32 matrix products from here on, and touches nothing else."""

    precision: str

    def __call__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.precision)
