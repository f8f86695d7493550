"""The words that a comparison's rows may say.

A row is one number: ``(fact, relation, method, selection, neurons, n_neurons, intervention, group, n_prompts, metric,
value)``. This is how it reads::

    fact          capital:Peru   For this fact
    relation      capital        (one of this relation)
    method        activation     take the neurons that this method
    selection     k=5            ranks highest,
    neurons       method         these themselves and no control set in their place,
    n_neurons     5              five of them.
    intervention  suppress       Set them to zero.
    group         same_object    Ask for other facts with the same answer,
    n_prompts     3              in three texts.
    metric        p_after        The mean probability of the answer
    value         0.31           is now this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from kn_attrib.errors import ConfigError, unknown

ROW = (
    "fact",
    "relation",
    "method",
    "selection",
    "neurons",
    "n_neurons",
    "intervention",
    "group",
    "n_prompts",
    "metric",
    "value",
)
"""The columns of a comparison's rows."""

# Groups: which texts are asked.

Group = Literal["target", "same_object", "same_subject", "same_relation", "other_relation", "plain_text"]
"""The fact's own held-out paraphrases, and groups of texts that its neurons should not change."""
GROUPS: tuple[Group, ...] = get_args(Group)
GROUP_NAMES = {
    "target": "this fact",
    "same_object": "same answer",
    "same_subject": "same subject",
    "same_relation": "same relation",
    "other_relation": "other relation",
    "plain_text": "plain words",
    "random": "this fact, random neurons",
}
"""Groups as figures call them; the last is no group, but what random neurons do to the fact itself."""

# Neurons: the method's own ("method"), or a control set in their place.

CONTROLS = (
    "random",
    "random_same_layer",
    "random_matched",
    "other_fact_same_relation",
    "other_fact_other_relation",
    "always_on",
    "bottom_k",
)
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


# Interventions: what is done to the neurons.

BASIC = ("suppress", "amplify", "mean", "resample")
"""Interventions at the answer position."""
EVERYWHERE = "_everywhere"
"""Ending of those at all tokens."""
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


# Selections: how neurons are taken from a method's scores. "refined", "specific" (of these, what facts of other
# relations do not have as well: `specific_sets`), "k=5" (the top five), and the points of curves.

SPECIFIC = "specific"

CURVE = "share="
"""How selections of deletion and insertion curves begin: ``share=0.01``."""
DELETE, KEEP = "delete", "keep"
"""The interventions of curves: the top share of all neurons at zero, or all but the top share."""
SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all neurons, as in the Mechanistic Interpretability Benchmark (Mueller et al. 2025)."""

# Metrics (see `measure.metrics.effect`), and the columns of tables.

HEADLINE = "relative_change"
"""The metric that is reported where only one is: how much of p(answer) is lost or gained."""
PERCENT = (HEADLINE, "mean_relative_change", "flip")
"""Metrics that are shares and shown in percent."""
CELL = ["method", "selection", "neurons", "intervention", "group", "metric"]
"""The columns that say what a row's value is of; means are taken over the facts of a cell."""
AGREEMENT = ["fact", "relation", "method", "other", "value"]
"""The columns of the table of rank correlations between methods."""

# Special methods: rows, and partners in the table of agreement, that are no method's.

WHOLE_FFN, DROPOUT = "whole_ffn", "dropout"
"""Rows that belong to no method: all neurons at zero (of all layers, of each), and random shares of them."""
CONSENSUS = "consensus"
"""The ``other`` of a method's agreement with the mean ranking of all other methods."""

# Status of a fact: whether it is judged, or why not.

USED = "used"
REASONS = {
    USED: "used",
    "unusable": "no attribution or no held-out prompt can be put to this model",
    "unknown": "the model does not know the answer (not the most likely token in enough attribution prompts)",
    "ambiguous": "several answers are right",
    "leaking": "the answer is inside the subject",
    "limit": "beyond the asked number of facts (still serves as a control)",
}
"""Status -> what it means."""
