"""Whether what is given as a model is one."""

from __future__ import annotations

from kn_attrib.errors import ModelError
from kn_attrib.models.neuron_model import NeuronModel


def check_model(model: object) -> None:
    """Raise on what `load_model` takes, or anything else, in the place of what it returns.

    Raises
    ------
    ModelError : it is no `NeuronModel`.
    """
    if isinstance(model, NeuronModel):
        return
    given = repr(model) if isinstance(model, str) else type(model).__name__
    load = f"load_model({model!r:.80})" if isinstance(model, str) else "load_model(…)"
    raise ModelError(f"model is {given:.80}; expected a loaded model: pass {load}.")
