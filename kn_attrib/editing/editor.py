"""The one interface that editors implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from typing_extensions import Self

from kn_attrib.editing.applied import AppliedEdit, apply_delta
from kn_attrib.editing.changes import Change
from kn_attrib.editing.edit import Edit, wanted_queries
from kn_attrib.editing.weight_delta import WeightDelta, check_alone, check_model
from kn_attrib.errors import MethodError, unknown
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.neurons import NeuronSet


class Editor(ABC):
    """A way of editing: a frozen dataclass whose fields are its parameters, with one method, `changes`.

    An editor never touches weights: it says what is to be added to value vectors, and `apply` does that and undoes it.
    Class attributes that an editor may set: ``presets`` (name -> parameters, for published settings) and ``reference``.
    """

    name: ClassVar[str] = ""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    reference: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        # Used as it is, without registration, an editor goes by its class's name.
        cls.name = cls.__name__

    @abstractmethod
    def changes(self, model: NeuronModel, edit: Edit) -> Sequence[Change]:
        """What is to be added to the value vectors; the model is left as it is."""

    def fit(self, model: NeuronModel, texts: Sequence[str]) -> Self:  # noqa: ARG002  # for subclasses
        """The editor made ready for a model; most are ready as they are.

        Parameters
        ----------
        model : the model to be edited.
        texts : ordinary text, for editors that ask what the model usually does.
        """
        return self

    @torch_defaults()
    def delta(self, model: NeuronModel, edit: Edit) -> WeightDelta:
        """What the edit adds to the model's weights; nothing is changed yet.

        Texts that cannot be put to the model are left out; the delta's record has the others.

        Raises
        ------
        EditError : the edit cannot be made: see the editor, and `wanted_queries`; or the model is a view.
        NeuronError : a layer or a neuron does not exist.
        """
        check_model(model)
        texts = dict.fromkeys(query.text for query in wanted_queries(model, edit))
        changes = tuple(self.changes(model, edit))
        for change in changes:
            model.value_vectors(change.layer)
            check_alone(model, change.layer)
        about = {
            "model": model.name,
            "editor": self.name,
            "params": {name: _plain(value) for name, value in self.params().items()},
            "fact": edit.fact.id,
            "answer": edit.fact.answer,
            "target": edit.target,
            "prompts": list(texts),
        }
        return WeightDelta(changes, model.digest, about)

    def apply(self, model: NeuronModel, edit: Edit, permanently: bool = False) -> AppliedEdit:
        """The edit as a context manager: ``with editor.apply(model, edit): …`` changes the weights and puts them back.

        Parameters
        ----------
        model : whose weights change.
        edit : what it shall answer.
        permanently : change the weights at once, until `AppliedEdit.undo` is called, if ever.

        Raises
        ------
        EditError, NeuronError : as of `delta` and, when the weights are to change, `AppliedEdit.apply`.
        """
        return apply_delta(model, self.delta(model, edit), permanently)

    @classmethod
    def preset(cls, name: str) -> Self:
        """The editor with published settings.

        Raises
        ------
        MethodError : the editor has no such preset.
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
        return {each.name: None if each.default is MISSING else each.default for each in _parameters(cls)}

    def params(self) -> dict[str, Any]:
        """This editor's parameters, the record of how an edit was made."""
        return {each.name: getattr(self, each.name) for each in _parameters(type(self))}


def _parameters(cls: type[Editor]) -> list[Any]:
    """An editor's parameters: its fields, but for what `Editor.fit` fills in."""
    return [each for each in fields(cls) if each.init]  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if isinstance(value, NeuronSet):
        return [list(neuron) for neuron in value]
    return list(value) if isinstance(value, tuple) else value
