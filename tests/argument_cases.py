"""What a call comes to, as text that can be compared; and which arguments there are at all."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import kn_attrib
import kn_attrib.evaluation
from kn_attrib.models.neuron_model import NeuronModel


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of something public, and what else each of its arguments may be.

    Parameters
    ----------
    call : takes the arguments by name, and returns all that they may have an effect on.
    given : arguments of the call that the others are compared with.
    other : of each argument a value that must change what the call comes to, or end in an error.
    beside : of an argument what else is to be given for it to have an effect, there and in the call compared with.
    """

    call: Callable[..., Any]
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    other: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def seen(value: Any) -> str:
    """A value as text that is the same for equal values."""
    if isinstance(value, Tensor):
        return str(value.detach().double().tolist())
    if isinstance(value, np.ndarray):
        return str([seen(each) for each in value] if value.dtype == object else value.tolist())
    if isinstance(value, pd.DataFrame):
        return str(value.to_csv())
    if isinstance(value, Figure):
        return "; ".join(f"{ax.get_title()}{[t.get_text() for t in ax.texts]}{ax.dataLim}" for ax in value.axes)
    if isinstance(value, Axes):
        return seen(value.figure)
    if isinstance(value, Path):
        files = [value] if value.is_file() else sorted(value.rglob("*"))
        return str([(file.name, file.read_bytes()) for file in files if file.is_file()])
    if isinstance(value, NeuronModel):
        return f"{value!r} {value.architecture} {value.execution.settings} {value.encoder.chat_frame} {value.digest}"
    if isinstance(value, Mapping):
        return str({key: seen(each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return str([seen(each) for each in value])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return seen({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    return repr(value)


def public() -> dict[str, inspect.Signature]:
    """Signatures of all that is public and can be called, by name; what a class inherits is its base's."""
    found: dict[str, inspect.Signature] = {}
    for package in (kn_attrib, kn_attrib.evaluation):
        for name, call in _exported(package):
            signature = inspect.signature(call)
            kept = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
            found[name] = signature.replace(parameters=kept)
    return found


def _exported(package: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            yield thing.__name__, thing
            yield from _methods(thing)
        elif inspect.isfunction(thing):
            yield thing.__name__, thing


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name in dir(cls):
        method = inspect.unwrap(getattr(cls, name)) if not name.startswith("_") else None
        function = getattr(method, "__func__", method)
        if inspect.isfunction(function) and function.__module__.startswith("kn_attrib"):
            yield function.__qualname__, method
