"""A delta on a model: the weights changed while active, and put back bit for bit, last come first gone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from typing_extensions import Self

from kn_attrib.editing.weight_delta import WeightDelta
from kn_attrib.errors import EditError
from kn_attrib.interventions.value_vectors import write_rows
from kn_attrib.models.neuron_model import NeuronModel

KEPT = "_kn_attrib_edits"
"""Under this name the wrapped model's module keeps the edits that are on it: several `NeuronModel` may wrap one."""


class AppliedEdit(AbstractContextManager["AppliedEdit"]):
    """A delta on a model; use it in a ``with`` statement, or call `apply` and `undo`.

    Old values of all rows that change are kept as they are and written back, so that no rounding is left: the model's
    digest afterwards is the one before, also after an exception or a KeyboardInterrupt.

    Parameters
    ----------
    model : whose weights change.
    delta : what is added to them.
    """

    def __init__(self, model: NeuronModel, delta: WeightDelta) -> None:
        self.model = model
        self.delta = delta
        self._change: AbstractContextManager[Any] | None = None
        self._before = ""

    @property
    def is_active(self) -> bool:
        """Whether the delta is on the model."""
        return self._change is not None

    def apply(self) -> Self:
        """Change the weights.

        Deltas made for the weights without edits may be applied on top of one another; each adds its own.

        Raises
        ------
        EditError : the delta is on the model already, was made for other weights, does not fit, or weights are tied.
        NeuronError : the model has no such layer.
        """
        active = _active(self.model)
        if any(each is self or each.delta.same(self.delta) for each in active):
            raise EditError(f"{self} is on {self.model.name} already; undo it before it is applied again.")
        self._check_weights(active)
        places = self.delta.places(self.model)
        before = active[0]._before if active else self.model.digest
        change = write_rows(self.model, places)
        # Known before it is done: an interruption in between must not leave what nobody can undo.
        vars(self.model.model)[KEPT] = [*active, self]
        try:
            change.__enter__()
        except BaseException:
            self._forget()
            raise
        self._change, self._before = change, before
        return self

    def undo(self) -> None:
        """Put the weights back.

        Raises
        ------
        EditError : the delta is not on the model, or another came after it that must be undone first.
        """
        active = _active(self.model)
        if self._change is None:
            raise EditError(f"{self} is not on {self.model.name}; there is nothing to undo.")
        if active[-1] is not self:
            raise EditError(f"{active[-1]} came after {self}; undo it first. The weights are left as they are.")
        change, self._change = self._change, None
        try:
            change.__exit__(None, None, None)
        finally:
            self._forget()

    def __enter__(self) -> Self:
        return self if self.is_active else self.apply()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __str__(self) -> str:
        about = self.delta.about
        return f"the edit {about.get('fact', '?')!r} → {about.get('target', '?')!r} by {about.get('editor', '?')}"

    def _check_weights(self, active: list[AppliedEdit]) -> None:
        wanted = self.delta.model_digest
        if active and active[0]._before == wanted:
            return
        if self.model.digest != wanted:
            raise EditError(
                f"{self} was made for weights with digest {wanted[:12]}…, but those of {self.model.name} are "
                f"{self.model.digest[:12]}…; open the model that it was made for, without other edits."
            )

    def _forget(self) -> None:
        left = [each for each in _active(self.model) if each is not self]
        if left:
            vars(self.model.model)[KEPT] = left
        else:
            vars(self.model.model).pop(KEPT, None)


def _active(model: NeuronModel) -> list[AppliedEdit]:
    """The edits that are on a model, the last one last."""
    return list(vars(model.model).get(KEPT, ()))


def apply_delta(model: NeuronModel, delta: WeightDelta, permanently: bool = False) -> AppliedEdit:
    """A delta as a context manager: ``with apply_delta(model, delta): …``.

    Parameters
    ----------
    model : whose weights change.
    delta : what is added to them.
    permanently : change the weights at once, until `AppliedEdit.undo` is called, if ever.

    Raises
    ------
    EditError, NeuronError : as of `AppliedEdit.apply`, when the weights are to change.
    """
    applied = AppliedEdit(model, delta)
    return applied.apply() if permanently else applied
