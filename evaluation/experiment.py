"""What an experiment is written in."""

from __future__ import annotations

from collections.abc import Sequence

from kn_attrib.errors import ConfigError
from kn_attrib.scoring.method_specs import labelled, make_method
from kn_attrib.scoring.scorer import Scorer


def scorers_of(methods: Sequence[str | type[Scorer] | Scorer]) -> dict[str, Scorer]:
    """Scorers of neurons by label.

    Raises
    ------
    MethodError : a method is unknown.
    ConfigError : there is none, two are the same, or one scores other units than neurons.
    """
    found = labelled([make_method(method) for method in methods])
    for label, method in found.items():
        if method.units is not None:
            raise ConfigError(
                f"{label!r} scores other units; this protocol changes value vectors, so name it without '@…'."
            )
    return {label: method.scorer for label, method in found.items()}
