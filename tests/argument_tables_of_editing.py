"""What the arguments of editing may be beside their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from argument_cases import Case
from argument_world import World
from kn_attrib import (
    Edit,
    Editor,
    NeuronSet,
    WeightDelta,
    apply_delta,
    get_editor,
    make_editor,
    register_editor,
)
from kn_attrib.editing import KnowledgeNeurons, RankOne
from kn_attrib.editing.applied import AppliedEdit
from kn_attrib.editing.registry import _EDITORS
from kn_attrib.models.neuron_model import digest_of


def of_editing(w: World) -> dict[str, Case]:
    editor = KnowledgeNeurons(neurons=NeuronSet([(0, 1), (1, 2)]))
    edit, other = Edit(w.fact, "Rome"), Edit(w.fact, "Berlin")
    delta, another = (editor.delta(w.bert, each) for each in (edit, other))

    def applied(call: Callable[..., AppliedEdit]) -> Callable[..., Any]:
        def made(**given: Any) -> Any:
            found = call(**given)
            was_active = found.is_active
            with found:
                return was_active, digest_of(given["model"].model)

        return made

    def registered(name: str) -> Any:
        before = dict(_EDITORS)
        try:
            mine: Any = dataclasses.dataclass(frozen=True)(type("Mine", (KnowledgeNeurons,), {}))
            return register_editor(name)(mine).name, sorted(set(_EDITORS) - set(before))
        finally:
            _EDITORS.clear()
            _EDITORS.update(before)

    def saved(path: Path) -> bool:
        delta.save(path)
        return path.is_file()

    given = {"model": w.bert, "edit": edit}
    return {
        "Edit": Case(
            Edit, {"fact": w.fact, "target": "Rome"},
            {"fact": w.facts[3], "target": "Berlin", "prompts": w.fact.prompts[:1]},
        ),
        "Editor.delta": Case(lambda **given: editor.delta(**given).changes, given, {"edit": other}),
        "Editor.apply": Case(applied(editor.apply), given, {"edit": other, "permanently": True}),
        "Editor.preset": Case(KnowledgeNeurons.preset, {"name": "paper"}, {"name": "code"}),
        "WeightDelta": Case(
            WeightDelta, {"changes": (), "model_digest": "a"},
            {"changes": (RankOne(0, torch.ones(2), torch.ones(1)),), "model_digest": "b", "about": {"editor": "c"}},
        ),
        "WeightDelta.same": Case(delta.same, {"other": delta}, {"other": another}),
        "WeightDelta.places": Case(delta.places, {"model": w.bert}),
        "WeightDelta.save": Case(saved, {"path": w.new("edit.safetensors")}),
        "WeightDelta.load": Case(WeightDelta.load, {"path": w.saved(delta, "edit.safetensors")}),
        "apply_delta": Case(
            applied(apply_delta), {"model": w.bert, "delta": delta}, {"delta": another, "permanently": True}
        ),
        "get_editor": Case(get_editor, {"name": "rome"}, {"name": "optimised"}),
        "make_editor": Case(make_editor, {"spec": "rome(layer=0)"}, {"spec": "rome(layer=1)"}),
        "register_editor": Case(registered, {"name": "mine"}, {"name": "yours"}),
    }  # fmt: skip


HOOKS = {f"{Editor.__name__}.{name}" for name in ("changes", "fit")}
"""What editors fill in, and the package calls."""
