"""Settings of a command from a YAML file."""

from __future__ import annotations

import inspect
import reprlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import typer
import yaml

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.store import reason_of, shown

PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int, str), "a whole number"),
    float: ((int, float, str), "a number"),
    bool: ((bool, str), "true or false"),
}
"""Kinds of values by kind of option (texts are left to the option, which says what is wrong with them)."""
TEXT = ((int, float, str), "text (in quotes, where YAML takes it for something else)")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of the command's options, so that the command line overrides them.

    Raises
    ------
    ConfigError : the file cannot be read, or a setting is unknown or of another kind than its option.
    """
    if path is None:
        return None
    options = {str(p.name): p for p in context.command.params if p.name not in ("config", "help")}
    kinds = _kinds(context.command.callback)
    defaults: dict[str, Any] = {}
    for key, value in _content(path).items():
        name = str(key).replace("-", "_")
        try:
            if name not in options:
                raise ConfigError(unknown("setting", str(key), options))
            if name in defaults:
                raise ConfigError(f"{key} is given twice.")
            if value is None and options[name].default is not None:
                raise ConfigError(f"{key} has no value; give one, or leave it out.")
            defaults[name] = _default(str(key), value, options[name], kinds[name])
        except ConfigError as error:
            raise ConfigError(f"--config {path}: {error}") from error
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _kinds(command: Any) -> dict[str, Any]:
    """The type of each option of a command, without None."""
    hints = get_type_hints(inspect.unwrap(command))
    return {name: next(iter({*get_args(hint)} - {NoneType}), hint) for name, hint in hints.items()}


def _default(key: str, value: Any, option: Any, kind: Any) -> Any:
    """The default of an option, from the value of a setting."""
    if option.name == "grid" and isinstance(value, dict):
        return [f"{factor}={_levels(f'{key}.{factor}', levels)}" for factor, levels in value.items()]
    types, expected = PLAIN.get(kind, TEXT)
    each = value if isinstance(value, list) else [value]
    for part in each:
        if not (part is value is None) and (type(part) not in types):
            raise ConfigError(f"{key} is {reprlib.repr(part)}; expected {expected}.")
    if getattr(option, "multiple", False):
        return None if value is None else [str(part) for part in each]
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _levels(key: str, levels: Any) -> str:
    """The levels of a grid's factor as `Factor.parse` reads them."""
    for level in levels if isinstance(levels, list) else [None]:
        if type(level) not in (bool, int, float, str):
            raise ConfigError(f"{key} is {reprlib.repr(levels)}; expected a list of levels.")
    return ",".join(map(str, levels))


class _OnceEach(yaml.SafeLoader):
    """YAML whose keys are given once: the last of two would hide the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            # Lists as keys are refused below; to write one as text may take for ever (one that repeats itself).
            names = [str(key) for key in keys if not isinstance(key, list | dict)]
            twice = [name for name, n in Counter(names).items() if n > 1]
            if twice:
                raise ConfigError(f"{twice[0]} is given twice.")
        return super().construct_mapping(node, deep)


def yaml_value(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What a YAML text holds, read by a safe loader.

    Raises
    ------
    ValueError, yaml.YAMLError : it is no YAML, nested too deep, or names a kind that a value is not of.
    """
    try:
        return yaml.load(text, Loader=loader)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    # What PyYAML's own constructors raise for values that are not of the kind that their tag says.
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"a value is not of the kind that its tag says ({error!r})") from error


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml_value(path.read_text(encoding="utf-8-sig"), _OnceEach)
    except ConfigError as error:
        raise ConfigError(f"cannot read --config {path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read --config {shown(path)}: {reason_of(error)}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read --config {shown(path)}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} holds {type(content).__name__}; expected keys and values.")
    return content
