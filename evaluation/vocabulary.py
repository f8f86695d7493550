"""The words that rows may say: groups of texts, control neurons, interventions, curves, metrics, columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kn_attrib.errors import ConfigError, unknown

CONSENSUS = "consensus"

BASIC = ("suppress", "amplify", "mean", "resample")
EVERYWHERE = "_everywhere"
INTERVENTIONS = (*BASIC, *(name + EVERYWHERE for name in BASIC))
"""``suppress`` sets activations to zero, ``amplify`` multiplies them, ``mean`` sets them to their mean over other facts
of the relation, ``resample`` to what they are for one other fact of the relation; ``…_everywhere`` at all tokens."""


def check_interventions(names: Sequence[str]) -> None:
    """Raise on an intervention that does not exist, or on none at all."""
    if not names:
        raise ConfigError(f"interventions is empty; expected some of {', '.join(INTERVENTIONS)}.")
    for name in names:
        if name not in INTERVENTIONS:
            raise ConfigError(unknown("intervention", name, INTERVENTIONS))


AGREEMENT = ["fact", "relation", "method", "other", "value"]
CELL = ["method", "selection", "neurons", "intervention", "group", "metric"]
HEADLINE = "relative_change"
WHOLE_FFN, DROPOUT = "whole_ffn", "dropout"
"""Rows that belong to no method: all neurons at zero (of all layers, of each), and random shares of them."""

Group = Literal["target", "same_object", "same_subject", "same_relation", "other_relation", "plain_text"]
GROUPS: tuple[Group, ...] = (
    "target", "same_object", "same_subject", "same_relation", "other_relation", "plain_text",
)  # fmt: skip
CONTROLS = (
    "random", "random_same_layer", "random_matched", "other_fact_same_relation", "other_fact_other_relation",
    "always_on", "bottom_k",
)  # fmt: skip
"""Control neurons of a set, as many as it has:

- ``random`` of the model, ``random_same_layer`` with as many per layer;
- ``random_matched``: of the same layer and decile of ``|a| · ‖v‖`` (for amplification: of the gradient's size);
- ``other_fact_…``: what the method selects for another fact (its own number of neurons);
- ``always_on``: the neurons that the method selects for most facts;
- ``bottom_k``: the neurons that the method gives the lowest scores.
"""
BUDGET_CONTROLS = ("random", "random_same_layer")
"""Controls of equal budgets; all others are of the refined sets alone."""


def check_controls(names: Sequence[str]) -> None:
    """Raise on a control that does not exist."""
    for name in names:
        if name not in CONTROLS:
            raise ConfigError(unknown("control", name, CONTROLS))


SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all neurons, as in the Mechanistic Interpretability Benchmark (Mueller et al. 2025)."""
DELETE, KEEP = "delete", "keep"
CURVE = "share="

GROUP_NAMES = {
    "target": "this fact",
    "same_object": "same answer",
    "same_subject": "same subject",
    "same_relation": "same relation",
    "other_relation": "other relation",
    "plain_text": "plain words",
    "random": "this fact, random neurons",
}
