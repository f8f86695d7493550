"""What tests of editors share: an edit of the tiny models' facts, and every editor made small."""

from __future__ import annotations

from typing import Any

from kn_attrib import FactSet, NeuronModel, NeuronSet
from kn_attrib.editing import Edit, Editor, get_editor

NEURONS = NeuronSet([(0, 3), (0, 40), (2, 7)])
SMALL: dict[str, dict[str, Any]] = {
    "knowledge_neurons": {"neurons": NEURONS},
    "random_neurons": {"neurons": NEURONS},
    "last_layer_neurons": {"neurons": NEURONS},
    "optimised": {"neurons": NEURONS, "steps": 3},
    "fine_tune": {"layer": 1, "steps": 3, "rate": 0.01},
    "fine_tune_constrained": {"layer": 1, "steps": 3},
    "rome": {"layer": 1, "steps": 3, "ridge": 0.01, "contexts": 1},
}
"""Parameters of each editor that make it fast on the tiny models."""


def small(name: str, model: NeuronModel, facts: FactSet) -> Editor:
    """An editor that is ready for a tiny model."""
    return get_editor(name)(**SMALL[name]).fit(model, plain_texts(facts))


def plain_texts(facts: FactSet) -> list[str]:
    """The facts in words, often enough that no editor warns of too few."""
    return 4 * [text.replace("[Y]", fact.answer) for fact in facts for text in fact.prompts]


def edit_of(facts: FactSet) -> Edit:
    """The first fact, France, shall have the second one's answer, Rome."""
    return Edit(facts[0], facts[1].answer)
