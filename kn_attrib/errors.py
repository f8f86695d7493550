"""The exceptions that kn_attrib raises for input that a user can mend.

Every message says what was given, what was expected and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMES = 40


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


class NeuronError(KnAttribError, ValueError):
    """A neuron, neuron set or budget does not fit the model."""


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
