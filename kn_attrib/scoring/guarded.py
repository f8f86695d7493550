"""Methods from outside the package at work: what they raise is said to be theirs, what they change is put back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch

from kn_attrib.errors import KnAttribError, MethodError
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.model_state import ModelState, staying
from kn_attrib.scoring.registry import origin, registered
from kn_attrib.scoring.scorer import Scorer

PASSED = (KnAttribError, MemoryError, torch.OutOfMemoryError)
"""Errors that say what is wrong as they are, or that callers answer by smaller batches."""
PACKAGE = __name__.split(".", 1)[0]


class MethodWarning(UserWarning):
    """A scoring method left something behind, which has been put back; or its scores tell nothing."""


@contextmanager
def guarded(
    scorer: Scorer,
    model: NeuronModel,
    thorough: bool = False,
    blame: bool = True,
    found: list[str] | None = None,
) -> Iterator[list[str]]:
    """While a method from outside the package works: its failures name it, and the model is left as it was.

    Hooks, replaced parts, train mode, frozen weights, their types and gradients, PyTorch's settings and the global
    random numbers are put back; what was is in the list that is given. The package's own methods are not watched: they
    are held to the same by its tests.

    Parameters
    ----------
    thorough : look at every value of the weights, and at random numbers too; else at some values of each weight.
    blame : whatever is raised is the method's; if not, it is let through.
    found : takes what was put back, and is what is given; a new one if not given.

    Warns
    -----
    MethodWarning : something had to be put back.

    Raises
    ------
    MethodError : the method failed or asked the program to exit, or weights have other values, which nobody can undo.
    """
    found = [] if found is None else found
    if is_own(scorer):
        yield found
        return
    state = ModelState(model, thorough)
    try:
        with staying():
            yield found
    except BaseException as error:  # whatever it is, even an interrupt, the model is put back
        spoilt = _settle(scorer, state, found)
        if not blame or isinstance(error, PASSED) or not isinstance(error, Exception | SystemExit):
            if spoilt and spoilt not in str(error):
                warnings.warn(f"method {_named(scorer)} is not usable.{spoilt}", MethodWarning, stacklevel=2)
            raise
        what = f"asked the program to exit ({error})" if isinstance(error, SystemExit) else _words(error)
        raise MethodError(f"method {_named(scorer)} failed: {what}.{spoilt}") from error
    if spoilt := _settle(scorer, state, found):
        raise MethodError(f"method {_named(scorer)} is not usable.{spoilt}")


def is_own(scorer: Scorer) -> bool:
    """Whether a method, and any that its parameters name, is the package's own."""
    # A class that is no dataclass has no parameters, and is not the package's own.
    params: dict[str, Any] = scorer.params() if is_dataclass(scorer) else {}
    named = [value for value in params.values() if isinstance(value, str | Scorer)]
    classes = [type(scorer)]
    for value in named:
        cls = type(value) if isinstance(value, Scorer) else registered(value)
        if cls is not None:
            classes.append(cls)
    return all(cls.__module__.split(".", 1)[0] == PACKAGE for cls in classes)


def _settle(scorer: Scorer, state: ModelState, found: list[str]) -> str:
    """Put everything back, and say so; returns what could not be, as a sentence."""
    mended, spoilt = state.put_back()
    found += mended
    if mended:
        # Outside this module, the context manager's own machinery and `kn_attrib.scoring.score`.
        warnings.warn(f"method {_named(scorer)} changed {', '.join(mended)}; put back.", MethodWarning, stacklevel=2)
    if not spoilt:
        return ""
    return f" It changed the model: {spoilt}; load the model again, and let the method undo what it does."


def _named(scorer: Scorer) -> str:
    return f"{scorer.name!r} ({origin(type(scorer))})"


def _words(error: BaseException) -> str:
    """Type and text of an error, and the line that it came from, without a full stop."""
    step, place = error.__traceback__, ""
    while step is not None:
        place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return f"{type(error).__name__}: {str(error).rstrip('.')} ({place})"
