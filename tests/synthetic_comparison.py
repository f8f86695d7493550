"""Comparisons made up so that their truth is known, for tests of the answers in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kn_attrib import Comparison

RELATIONS, FACTS = 12, 4
Effects = dict[tuple[str, str, str], float]
"""(method, neurons, group) -> mean relative change."""

BASE: Effects = {
    ("good", "method", "target"): -0.6,
    ("good", "method", "same_object"): -0.5,
    ("good", "method", "same_subject"): -0.02,
    ("good", "method", "same_relation"): -0.02,
    ("good", "method", "other_relation"): 0.0,
    ("good", "method", "plain_text"): 0.0,
    ("good", "random", "target"): 0.0,
    ("poor", "method", "target"): -0.2,
    ("twin", "method", "target"): -0.598,
    ("ablation", "method", "target"): -0.5,
}


def synthetic(
    effects: Effects,
    ffn: float = -0.7,
    noise: float = 0.02,
    seed: int = 0,
    relations: int = RELATIONS,
    per_relation: int = FACTS,
) -> Comparison:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []

    def add(fact: str, method: str, selection: str, neurons: str, group: str, mean: float) -> None:
        for metric in ("relative_change", "delta_logprob"):
            rows.append(
                {"fact": fact, "relation": fact[:3], "method": method, "selection": selection, "neurons": neurons,
                 "n_neurons": 5, "intervention": "suppress", "group": group, "n_prompts": 4, "metric": metric,
                 "value": mean + rng.normal(0, noise)}
            )  # fmt: skip

    facts = [f"r{r:02d}:{i}" for r in range(relations) for i in range(per_relation)]
    for fact in facts:
        add(fact, "whole_ffn", "all", "method", "target", ffn)
        add(fact, "whole_ffn", "layer 0", "method", "target", ffn / 2)
        add(fact, "whole_ffn", "layer 1", "method", "target", ffn / 4)
        add(fact, "dropout", "0.1", "random", "target", -0.05)
        for (method, neurons, group), mean in effects.items():
            for selection in ("refined", "k=5"):
                add(fact, method, selection, neurons, group, mean)
    methods = list(dict.fromkeys(method for method, _, _ in effects))
    manifest = {"methods": [{"method": m} for m in methods], "settings": {"seed": 0, "interventions": ["suppress"]}}
    neurons = pd.DataFrame(columns=["method", "selection", "fact", "relation", "layer", "neuron"])
    return Comparison(pd.DataFrame(rows), pd.DataFrame({"fact": facts, "status": "used"}), neurons, manifest)


def with_rows(comparison: Comparison, *more: tuple[str, str, str, float]) -> Comparison:
    """With ``(method, selection, group, effect)`` for every fact, 2 neurons each."""
    like = comparison.rows[(comparison.rows.method == "good") & (comparison.rows.selection == "refined")]
    like = like[(like.neurons == "method") & (like.group == "target")]
    added = [
        like.assign(method=method, selection=selection, group=group, value=effect, n_neurons=2)
        for method, selection, group, effect in more
    ]
    return replace(comparison, rows=pd.concat([comparison.rows, *added]))
