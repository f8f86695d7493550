"""The exceptions that kn_attrib raises for input that a user can mend, and the checks of kinds of values.

Every message says what was given, what was expected and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

MOST_NAMES = 40
KINDS: dict[Any, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a text"),
}
"""Plain kinds by annotation: what a value is an instance of, and what that is called."""


class KnAttribError(Exception):
    """Base of every error that kn_attrib raises on purpose."""


class FactError(KnAttribError, ValueError):
    """A fact, a facts file or a template is not as it should be."""


class PromptError(KnAttribError, ValueError):
    """A prompt or an answer cannot be put to this model; ``cause`` says why in a word or two, for counting."""

    def __init__(self, message: str, cause: str = "other") -> None:
        super().__init__(message)
        self.cause = cause


class ModelError(KnAttribError, ValueError):
    """A model cannot be loaded, or is of a kind that is not supported."""


class MethodError(KnAttribError, ValueError):
    """A scoring method is unknown, wrongly parametrised, or returned something unusable."""


class UnknownMethodError(MethodError):
    """No scoring method of that name is registered."""


class NeuronError(KnAttribError, ValueError):
    """A neuron, neuron set or budget does not fit the model."""


class EditError(KnAttribError, ValueError):
    """An edit cannot be made, or not on this model, or not now."""


class ConfigError(KnAttribError, ValueError):
    """A setting of a run is unknown or out of range."""


class StoreError(KnAttribError, OSError):
    """Something could not be written to, or read from, disk."""


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """Message for an unknown name: what was given, what comes close, what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    shown = ", ".join(names[:MOST_NAMES]) or "none"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"unknown {kind} {given!r}.{hint} Known: {shown}{more}."


def check_kinds(settings: Any, what: str = "") -> None:
    """Raise if a field of settings is of another kind than its annotation; only plain kinds and tuples are looked at.

    Parameters
    ----------
    settings : a dataclass.
    what : said before the field's name.

    Raises
    ------
    ConfigError : a field is; it is named.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        check_kind(f"{what} {field.name}".strip(), getattr(settings, field.name), hints[field.name])


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Raise if a value is of another kind than an annotation.

    Raises
    ------
    ConfigError : it is.
    """
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    if value is None and NoneType in get_args(hint):
        return
    if get_origin(kinds[0]) is tuple:
        for each in value:
            _check_plain(f"{name} holds", each, get_args(kinds[0])[0])
    else:
        _check_plain(f"{name} is", value, kinds[0])


def _check_plain(said: str, value: Any, kind: Any) -> None:
    kind = str if get_origin(kind) is Literal else kind
    if kind not in KINDS:
        return
    expected, words = KINDS[kind]
    # Python counts True as 1; whoever writes seed=True has not meant 1.
    if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{said} {value!r}; expected {words}.")


def listed(name: str, values: Any) -> tuple[Any, ...]:
    """Several values as a tuple.

    Raises
    ------
    ConfigError : they are one value, or one text, which is a sequence of characters.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"{name} is {values!r}; expected several, such as [{values!r}].")
    return tuple(values)
