"""The registry of editors: the package's own, and other packages' (entry points)."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from kn_attrib.editing.editor import Editor
from kn_attrib.errors import MethodError, unknown
from kn_attrib.scoring.registry import parse_call, with_params

ENTRY_POINTS = "kn_attrib.editors"
BUILT_IN = "kn_attrib.editing"

_EDITORS: dict[str, type[Editor]] = {}
E = TypeVar("E", bound=type[Editor])


def register_editor(name: str) -> Callable[[E], E]:
    """Class decorator: make an editor available under ``name``.

    Raises
    ------
    MethodError : the class is not an Editor dataclass, or the name is taken.
    """

    def decorate(cls: E) -> E:
        if not (inspect.isclass(cls) and issubclass(cls, Editor) and is_dataclass(cls)):
            raise MethodError(f"cannot register {cls!r} as {name!r}; expected a @dataclass subclass of Editor.")
        if name in _EDITORS:
            taken = _EDITORS[name]
            raise MethodError(
                f"editor {name!r} is registered already, by {taken.__module__}.{taken.__qualname__}; choose another "
                "name."
            )
        cls.name = name
        _EDITORS[name] = cls
        return cls

    return decorate


def get_editor(name: str) -> type[Editor]:
    """The editor class registered under ``name``.

    Raises
    ------
    MethodError : no such editor; close matches and all names are listed.
    """
    _discover()
    if name not in _EDITORS:
        raise MethodError(unknown("editor", name, _EDITORS))
    return _EDITORS[name]


def list_editors() -> list[str]:
    """Names of all registered editors, sorted."""
    _discover()
    return sorted(_EDITORS)


def make_editor(spec: Any) -> Editor:
    """An editor from an instance, a class, or a text ``name``, ``name:preset`` or ``name(param=value, …)``.

    Raises
    ------
    MethodError : unknown editor, preset or parameter.
    """
    if isinstance(spec, Editor):
        return spec
    if inspect.isclass(spec) and issubclass(spec, Editor):
        return with_params(spec, {})
    if not isinstance(spec, str):
        raise MethodError(f"{spec!r} is not an editor; expected a name, an Editor class or an Editor.")
    name, params = parse_call(spec)
    if params is not None:
        return with_params(get_editor(name), params)
    name, _, preset = spec.partition(":")
    cls = get_editor(name.strip())
    return cls.preset(preset) if preset else with_params(cls, {})


@cache
def _discover() -> None:
    """Import the built-in editors and those of installed packages, once."""
    importlib.import_module(BUILT_IN)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except MethodError:
            raise
        except Exception as error:  # another package's import may fail in any way; name the package
            raise MethodError(f"editor {entry.name!r} of package {entry.value!r} failed to load: {error}") from error
