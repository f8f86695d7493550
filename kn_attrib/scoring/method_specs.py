"""Methods by text, with the units they score: ``"activation"``, ``"ablation@heads"``, ``"activation@nmf(k=8)"``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kn_attrib.errors import ConfigError, MethodError, unknown
from kn_attrib.scoring.registry import AT, list_methods, make_scorer, parse_call, with_params
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.units.factors import NMF, PCA
from kn_attrib.units.heads import Heads
from kn_attrib.units.view import Units

UNITS: dict[str, type[Units]] = {kind.name: kind for kind in (NMF, PCA, Heads)}
"""The kinds of units other than neurons."""


@dataclass(frozen=True)
class Method:
    """A scorer and the units that it scores.

    Parameters
    ----------
    scorer : the scorer.
    units : None for neurons.
    label : how it is called in results, if not by the scorer's name.

    Raises
    ------
    MethodError : the scorer can score neurons only.
    """

    scorer: Scorer
    units: Units | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.units is not None and self.scorer.neurons_only:
            raise MethodError(
                f"{self.scorer.name!r} scores neurons only, not units ({str(self.units)!r}): it looks into "
                "feed-forward blocks, or puts one prompt's activations into another; use it without '@…', or a method "
                "such as integrated_gradients or ablation."
            )


def make_units(spec: str) -> Units:
    """Units from text: ``"nmf"``, ``"pca(k=8)"``, ``"heads"``.

    Raises
    ------
    MethodError : unknown units or parameter.
    """
    name, params = parse_call(spec)
    if name not in UNITS:
        raise MethodError(unknown("units", name, UNITS))
    return with_params(UNITS[name], params or {})


def make_method(spec: Any) -> Method:
    """A method from what `make_scorer` takes, or from text with units after an ``@``.

    Raises
    ------
    MethodError : unknown method, units or parameter, or a method that can score neurons only.
    """
    if isinstance(spec, Method):
        return spec
    found = AT.fullmatch(spec) if isinstance(spec, str) else None
    if found is None:
        return Method(make_scorer(spec))
    return Method(make_scorer(found["method"]), make_units(found["units"]), spec.strip())


def expanded(methods: Iterable[Any]) -> list[Any]:
    """The methods, with the names of all registered ones for each ``"all"``."""
    return [each for method in methods for each in (list_methods() if method == "all" else [method])]


def labelled(methods: Sequence[Method]) -> dict[str, Method]:
    """Methods under their label, else their scorer's name, with parameters where a name occurs more than once.

    Raises
    ------
    ConfigError : there is none, or two are the same.
    """
    if not methods:
        raise ConfigError("methods is empty; expected at least one.")
    names = Counter(method.scorer.name for method in methods if not method.label)

    def label_of(method: Method) -> str:
        if method.label:
            return method.label
        return repr_of(method.scorer) if names[method.scorer.name] > 1 else method.scorer.name

    labels = [label_of(method) for method in methods]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"methods names the same scorer twice: {', '.join(labels)}.")
    return dict(zip(labels, methods, strict=True))


def repr_of(scorer: Scorer) -> str:
    """``name(param=value, …)`` with the parameters that differ from the defaults."""
    changed = {k: v for k, v in scorer.params().items() if v != scorer.defaults()[k]}
    listed = ", ".join(f"{name}={value}" for name, value in changed.items())
    return f"{scorer.name}({listed})" if changed else scorer.name
