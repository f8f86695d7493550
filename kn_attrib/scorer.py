"""The one interface that scoring methods implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from kn_attrib.errors import MethodError, unknown
from kn_attrib.model import NeuronModel
from kn_attrib.prompts import Batch


@dataclass(frozen=True)
class Attribution:
    """Scores together with how far they are from complete.

    Attributes
    ----------
    values : ``[prompt, layer, neuron]``.
    gap : ``[prompt, layer]``, sum of a layer's attributions minus the difference that they should add up to.
    difference : ``[prompt, layer]``, that difference, e.g. ``f_l(a) − f_l(0)``.
    """

    values: Tensor
    gap: Tensor | None = None
    difference: Tensor | None = None


class Scorer(ABC):
    """A scoring method: a frozen dataclass whose fields are its parameters, with one method, `score`.

    Class attributes a method may set:

    - ``presets``: name -> parameters, for published settings;
    - ``threshold``: the refinement threshold its authors use (default 0.2);
    - ``reference``: the paper.
    """

    name: ClassVar[str] = ""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    threshold: ClassVar[float] = 0.2
    reference: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        # Used as it is, without registration, a scorer goes by its class's name.
        cls.name = cls.__name__

    @abstractmethod
    def score(self, model: NeuronModel, batch: Batch) -> Tensor | Attribution:
        """Score every neuron for every prompt: ``[prompt, layer, neuron]``, larger = more responsible."""

    @classmethod
    def preset(cls, name: str) -> Self:
        """The method with published settings.

        Raises
        ------
        MethodError : the method has no such preset.
        """
        if name not in cls.presets:
            raise MethodError(f"{cls.name}: {unknown('preset', name, cls.presets)}")
        return cls(**cls.presets[name])

    @classmethod
    def summary(cls) -> str:
        """First line of the class's docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Parameters and their default values."""
        return {f.name: None if f.default is MISSING else f.default for f in fields(cls)}  # type: ignore[arg-type]

    def params(self) -> dict[str, Any]:
        """This scorer's parameters, the record of how scores were made."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
