"""The registry of scoring methods: the package's own, other packages' (entry points) and a script's."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from kn_attrib.errors import MethodError, UnknownMethodError, unknown
from kn_attrib.scoring.model_state import staying
from kn_attrib.scoring.scorer import Scorer

ENTRY_POINTS = "kn_attrib.methods"
BUILT_IN = "kn_attrib.methods"

_METHODS: dict[str, type[Scorer]] = {}
PLAIN_TYPES: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
AT = re.compile(r"\s*(?P<method>\S.*?)\s*@\s*(?P<units>\w+\s*(?:\([^()]*\))?)\s*", re.DOTALL)
"""Text of a method with the units that it is to score after an ``@`` (see `kn_attrib.scoring.method_specs`)."""
S = TypeVar("S", bound=type[Scorer])
P = TypeVar("P")


def register(name: str, *aliases: str) -> Callable[[S], S]:
    """Class decorator: make a scorer available under ``name`` (and further names).

    Raises
    ------
    MethodError : the class is not a Scorer dataclass, or a name is taken.
    """

    def decorate(cls: S) -> S:
        if not (inspect.isclass(cls) and issubclass(cls, Scorer) and is_dataclass(cls)):
            raise MethodError(
                f"cannot register {cls!r} as {name!r}; expected a @dataclass subclass of kn_attrib.Scorer."
            )
        for each in (name, *aliases):
            if each in _METHODS:
                raise MethodError(
                    f"method {each!r} is registered already, by {origin(_METHODS[each])}; choose another name."
                )
        cls.name = name
        for each in (name, *aliases):
            _METHODS[each] = cls
        return cls

    return decorate


def get_method(name: str) -> type[Scorer]:
    """The scorer class registered under ``name``.

    Raises
    ------
    MethodError : no such method; close matches and all names are listed.
    """
    _discover()
    if name not in _METHODS:
        raise UnknownMethodError(unknown("method", name, _METHODS))
    return _METHODS[name]


def registered(spec: str) -> type[Scorer] | None:
    """The class that a method's text names, None where it names none."""
    _discover()
    return _METHODS.get(re.split(r"[(:@]", spec, maxsplit=1)[0].strip())


def list_methods(aliases: bool = False) -> list[str]:
    """Names of all registered methods, sorted; with their other names if asked."""
    _discover()
    return sorted(name for name, cls in _METHODS.items() if aliases or name == cls.name)


def origin(cls: type[Scorer]) -> str:
    """Where a scorer is defined, ``file:line``."""
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return cls.__module__


def load_plugin(path: str | Path) -> list[str]:
    """Run a Python file that registers scorers; returns the names it added.

    Raises
    ------
    MethodError : the file does not exist, fails to run, or registers nothing.
    """
    file = Path(path)
    if not file.is_file():
        raise MethodError(f"plug-in {str(path)!r} does not exist; expected a Python file that registers a scorer.")
    _discover()
    before = dict(_METHODS)
    spec = importlib.util.spec_from_file_location(f"kn_attrib_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise MethodError(f"plug-in {str(path)!r} is not a Python file; expected a name that ends in .py.")
    # Dataclasses and inspect look a class's module up here.
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        with staying():
            spec.loader.exec_module(module)
    except (
        Exception,
        SystemExit,
    ) as error:  # a script may fail in any way; what matters is to say which one, and where
        del sys.modules[spec.name]
        _METHODS.clear()
        _METHODS.update(before)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f" in line {lines[-1]}" if lines else ""
        what = str(error) if isinstance(error, MethodError) else f"{type(error).__name__}: {error}"
        raise MethodError(f"plug-in {str(path)!r} failed{where}: {what}") from error
    added = sorted(set(_METHODS) - set(before))
    if not added:
        raise MethodError(
            f"plug-in {str(path)!r} registered no method; decorate a class with @kn_attrib.register(name)."
        )
    return added


def make_scorer(spec: Any) -> Scorer:
    """A scorer from an instance, a class, or a text ``name``, ``name:preset`` or ``name(param=value, …)``.

    Raises
    ------
    MethodError : unknown method, preset or parameter.
    """
    if isinstance(spec, Scorer):
        return spec
    if inspect.isclass(spec) and issubclass(spec, Scorer):
        return with_params(spec, {})
    if not isinstance(spec, str):
        raise MethodError(f"{spec!r} is not a method; expected a name, a Scorer class or a Scorer.")
    if AT.fullmatch(spec):
        raise MethodError(
            f"{spec!r} names units other than neurons; compare takes that, and score a view: "
            "kn_attrib.scoring.method_specs.make_units('heads').views(model, prompts)."
        )
    name, params = parse_call(spec)
    if params is not None:
        return with_params(get_method(name), params)
    name, _, preset = spec.partition(":")
    cls = get_method(name)
    return cls.preset(preset) if preset else with_params(cls, {})


def with_params(cls: type[P], params: dict[str, Any]) -> P:
    """``cls(**params)`` with a clear error for a parameter that is unknown, missing or of the wrong kind.

    Parameters
    ----------
    cls : a dataclass with a ``name`` and ``defaults()``, such as a `Scorer`.
    """
    made: P = _with_params(cls, params)
    return made


def _with_params(cls: Any, params: dict[str, Any]) -> Any:
    hints = _hints(cls)
    for name, value in params.items():
        if name not in cls.defaults():
            raise MethodError(f"{cls.name}: {unknown('parameter', name, cls.defaults())}")
        hint: Any = hints.get(name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise MethodError(f"{cls.name}: {unknown(name, str(value), map(str, get_args(hint)))}")
        # Python counts True as 1; whoever writes steps=True has not meant one step.
        odd = isinstance(value, bool) and hint is not bool
        if hint in PLAIN_TYPES and (odd or not isinstance(value, PLAIN_TYPES[hint])):
            raise MethodError(f"{cls.name}: parameter {name!r} is {value!r}; expected {hint.__name__}.")
    required = [f.name for f in fields(cls) if f.init and f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in params]
    if missing:
        raise MethodError(f"{cls.name}: parameter {missing[0]!r} has no default; write {cls.name}({missing[0]}=…).")
    return cls(**params)


def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError:  # a plug-in's annotation may name what it imports for type checkers only
        return {}


def parse_call(spec: str) -> tuple[str, dict[str, Any] | None]:
    """``"name(param=value, …)"`` -> name and parameters, None where there are no brackets.

    Raises
    ------
    MethodError : what is in the brackets are not named plain values.
    """
    name, _, rest = spec.partition("(")
    if not rest:
        return spec.strip(), None
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("parameters must be named")
        params = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(params) < len(call.keywords):
            raise ValueError("a parameter is given twice")
        return name.strip(), params
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise MethodError(
            f"cannot read method {spec!r}; expected name(param=value, …) with plain values, each parameter once."
        ) from error


@cache
def _discover() -> None:
    """Import the built-in methods and those of installed packages, once."""
    importlib.import_module(BUILT_IN)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except MethodError:
            raise
        except Exception as error:  # another package's import may fail in any way; name the package
            raise MethodError(f"method {entry.name!r} of package {entry.value!r} failed to load: {error}") from error
