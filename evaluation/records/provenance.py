"""Where the numbers of a run come from: the model, the facts, the methods with their cost, versions and date."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from kn_attrib.facts.facts import FactSet
from kn_attrib.models.neuron_model import NeuronModel, dtype_name
from kn_attrib.scoring.method_specs import Method
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.store import versions


def manifest_of(model: NeuronModel, facts: FactSet, started: float, **further: Any) -> dict[str, Any]:
    """The record of a run of one model on some facts.

    Parameters
    ----------
    started : `time.perf_counter` at the start.
    further : what else to record, such as ``settings`` and ``methods``.
    """
    described = {
        "name": model.name,
        "class": type(model.model).__name__,
        "kind": model.kind,
        "chat": model.encoder.chat_frame,
        "layers": model.n_layers,
        "neurons_per_layer": model.n_neurons,
        "dtype": dtype_name(model),
        "device": str(model.device),
        "sha256": model.digest,
        "products": model.execution.products_so_far(),
    }
    return {"model": described, "facts": {"sha256": facts.digest, "n": len(facts)}, **stamp(started), **further}


def identity_of(
    model: NeuronModel,
    facts: FactSet,
    settings: Mapping[str, Any],
    methods: Mapping[str, Method],
    **further: Any,
) -> dict[str, Any]:
    """What the results of a run depend on: only a run of the same identity may go on with its finished work.

    Parameters
    ----------
    methods : by label; their scorers' names and parameters count, and their units.
    further : what else, such as the experiment's name.
    """
    return {
        "model": [model.digest, dtype_name(model), str(model.device)],
        "chat": model.encoder.chat_frame,
        "facts": facts.digest,
        "settings": dict(settings),
        "methods": {label: [m.scorer.name, m.scorer.params(), str(m.units)] for label, m in methods.items()},
        "versions": versions(),
        **further,
    }


def stamp(started: float) -> dict[str, Any]:
    """Versions, date, and the seconds since the start."""
    return {
        "versions": versions(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 1),
    }


def methods_of(scorers: Mapping[str, Scorer], cost: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each method with its parameters and what it cost, where it was run."""
    return [
        {"method": label, "name": scorer.name, "params": scorer.params(), **cost.get(label, {})}
        for label, scorer in scorers.items()
    ]


def jsonable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from JSON: lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
