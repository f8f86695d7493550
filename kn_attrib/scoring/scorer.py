"""The one interface that scoring methods implement."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self, override

from kn_attrib.errors import MethodError, unknown
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.contrast_pool import Pool, pool_of


@dataclass(frozen=True)
class Attribution:
    """Scores together with how far they are from complete.

    Attributes
    ----------
    values : ``[prompt, layer, neuron]``.
    gap : ``[prompt, layer]``, sum of a layer's attributions minus the difference that they should add up to.
    difference : ``[prompt, layer]``, that difference, e.g. ``f_l(a) − f_l(0)``.
    error : ``[prompt, layer]``, estimated Euclidean length of the numerical error of a layer's scores.
    capped : ``[prompt, layer]``, whether a layer ran out of nodes before it was as exact as asked.
    """

    values: Tensor
    gap: Tensor | None = None
    difference: Tensor | None = None
    error: Tensor | None = None
    capped: Tensor | None = None


class Scorer(ABC):
    """A scoring method: a frozen dataclass whose fields are its parameters, with one method, `score`.

    Methods that need other facts beside the one they score are a `ContrastScorer`; those that score a fact as a whole,
    from all of its prompts, a `FactScorer`.

    Class attributes a method may set:

    - ``presets``: name -> parameters, for published settings;
    - ``threshold``: the refinement threshold its authors use (default 0.2);
    - ``reference``: the paper;
    - ``neurons_only``: it cannot score other units (`kn_attrib.units`), since it looks into feed-forward blocks
      (hook points, value vectors), or puts one prompt's activations into another, while a unit's direction may be its
      own;
    - ``any_length``: it asks of a batch only its objective as a function of rows (`objective_function`), positions and
      answers, so that prompts of several lengths may come together (`MixedBatch`);
    - ``cheaper``: a sentence that names a cheaper setting, for methods that take long on large models.
    """

    name: ClassVar[str] = ""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    threshold: ClassVar[float] = 0.2
    reference: ClassVar[str] = ""
    neurons_only: ClassVar[bool] = False
    any_length: ClassVar[bool] = False
    cheaper: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        # Used as it is, without registration, a scorer goes by its class's name.
        cls.name = cls.__name__

    @abstractmethod
    def score(self, model: NeuronModel, batch: Batch) -> Tensor | Attribution:
        """Score every neuron for every prompt: ``[prompt, layer, neuron]``, larger = more responsible."""

    # For subclasses:
    def fit(self, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Self:  # noqa: ARG002
        """The method made ready for facts; most look at one prompt at a time and are ready as they are.

        Parameters
        ----------
        model : the model to be scored.
        prompts : queries of the facts that are going to be scored.
        others : queries of further facts, for contrast.
        """
        return self

    def rows_per_prompt(self, model: NeuronModel) -> int:  # noqa: ARG002  # for subclasses
        """Rows through the model for each prompt, where they grow with the number of neurons; else 0."""
        return 0

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
        return {f.name: None if f.default is MISSING else f.default for f in _parameters(cls)}

    def params(self) -> dict[str, Any]:
        """This scorer's parameters, the record of how scores were made."""
        return {f.name: getattr(self, f.name) for f in _parameters(type(self))}


def _parameters(cls: type[Scorer]) -> list[Any]:
    """A scorer's parameters: its fields, but for what `Scorer.fit` fills in."""
    return [f for f in fields(cls) if f.init]  # type: ignore[arg-type]


@dataclass(frozen=True)
class ContrastScorer(Scorer):
    """A method that compares a prompt with those of other facts.

    `score` finds them in ``self.pool``: the facts that are scored and, if any were given, further ones.
    """

    _pool: Pool | None = field(default=None, init=False, repr=False, compare=False)

    def fit(self, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Self:
        """A copy of the method that knows the facts' queries (parameters as in `Scorer.fit`)."""
        fitted = copy.copy(self)
        object.__setattr__(fitted, "_pool", pool_of(model, prompts, others))
        return fitted

    @property
    def pool(self) -> Pool:
        """What the method was fitted on.

        Raises
        ------
        MethodError : it was not.
        """
        if self._pool is None:
            raise MethodError(
                f"{self.name} needs the prompts of several facts; call kn_attrib.score(model, facts, …), or its "
                "fit(model, prompts, others) first."
            )
        return self._pool


@dataclass(frozen=True)
class FactScorer(ContrastScorer):
    """A method that scores a fact as a whole, from all of its prompts: each prompt of the fact gets the same scores."""

    _found: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @abstractmethod
    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        """Score every neuron for every fact of ``pool.facts``: fact id -> ``[layer, neuron]``."""

    def fit(self, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Self:
        """A copy of the method that has scored the facts (parameters as in `Scorer.fit`)."""
        fitted = super().fit(model, prompts, others)
        object.__setattr__(fitted, "_found", self.score_facts(model, fitted.pool))
        return fitted

    @override
    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        """The scores of each prompt's fact.

        Raises
        ------
        MethodError : a fact of the batch was not among those fitted on.
        """
        unknown_facts = [fact.id for fact in batch.facts if fact.id not in self._found]
        if unknown_facts:
            raise MethodError(
                f"{self.name} was not fitted on fact {unknown_facts[0]!r}; call kn_attrib.score(model, facts, …), or "
                "its fit(model, prompts, others) first."
            )
        return torch.stack([self._found[fact.id] for fact in batch.facts])
