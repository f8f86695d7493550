"""Every parameter of every method is looked at when it scores, alone and beside any other; or it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest

from kn_attrib import NeuronModel, get_method, list_methods, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.scoring.scorer import Scorer

OTHERS: dict[str, Any] = {
    "against": "activation", "alone": 0.25, "balance": 0.5, "base": "activation", "baseline": "mask", "beam": 2,
    "candidates": 3, "centred": True, "common": 0.5, "controls": 2, "draws": 2, "foils": 1, "frozen": True,
    "gates": False, "graddrop": True, "l1_ratio": 0.5, "label": "answer", "layer_steps": 3, "max_iter": 3000,
    "max_rows": 64, "norms": False, "activations": False, "attention": False, "objective": "logprob", "orders": 2,
    "pairs": "own", "passing": 0.4, "penalty": 5.0, "per": "prompt", "precision": 0.2, "rate": 0.2,
    "rule": "riemann_middle", "same_relation": True, "samples": 3, "screen": 0.5, "seed": 1, "share": 0.1, "sigma": 1.0,
    "size": 3, "start": 0.01, "steps": 3, "strength": 0.2, "tolerance": 0.05, "truncation": 0.1, "value": 0.1,
    "values": 7,
}  # fmt: skip
"""Of each parameter, by name, a value that is not its default."""
OWN: dict[tuple[str, str], Any] = {
    ("relp", "objective"): "prob",
    ("contrastive_joint_ig", "objective"): "prob",
    ("greedy_ablation", "objective"): "prob",
    ("hard_concrete", "start"): 1.0,
    ("probe", "tolerance"): 0.001,
    ("layer_integrated_gradients", "baseline"): "zero",
}
"""Where that is its default, or no value of it."""
CHEAP: dict[str, dict[str, Any]] = {
    "balanced_mask": {"steps": 3}, "hard_concrete": {"steps": 3}, "slimming": {"steps": 3},
    "restoration": {"draws": 2}, "shapley": {"candidates": 3, "orders": 2},
}  # fmt: skip


def changes(name: str) -> Iterator[dict[str, Any]]:
    """Each parameter changed alone, and each two of them."""
    values = {field: OWN.get((name, field), OTHERS.get(field)) for field in get_method(name).defaults()}
    for n in (1, 2):
        for fields in combinations(values, n):
            yield {field: values[field] for field in fields}


def looked_at(cls: type[Scorer]) -> tuple[type[Scorer], set[str]]:
    """The method as one that notes which of its parameters are read."""
    read: set[str] = set()

    class Watched(cls):  # type: ignore[misc, valid-type]
        def params(self) -> dict[str, Any]:
            """The record of a run names every parameter, used or not."""
            before = set(read)
            found: dict[str, Any] = super().params()
            read.intersection_update(before)
            return found

        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    return Watched, read


@pytest.mark.parametrize("name", list_methods())
def test_a_parameter_that_would_be_ignored_is_refused(
    name: str, load_tiny: Callable[..., NeuronModel], facts: FactSet
) -> None:
    tiny = load_tiny("masked")
    cls = get_method(name)
    missing = [each for each in cls.defaults() if (name, each) not in OWN and each not in OTHERS]
    assert not missing, f"OTHERS has no value for {missing}, new parameters of {name}"
    ignored, accepted = [], set()
    for changed in changes(name):
        watched, read = looked_at(cls)
        try:
            scorer = watched(**{**CHEAP.get(name, {}), **changed})
        except MethodError:
            continue
        accepted |= set(changed)
        read.clear()
        score(tiny, facts[0], scorer, contrast=facts[1:], max_prompts=1)
        ignored += [(changed, field) for field in changed if field not in read]
    assert not ignored
    assert accepted == set(cls.defaults())
