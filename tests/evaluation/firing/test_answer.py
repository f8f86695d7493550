"""The answer in words, on rows whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from kn_attrib.evaluation.firing.answer import answer_of
from kn_attrib.evaluation.firing.groups import DESIGNS, PUBLISHED
from kn_attrib.evaluation.firing.rows import FiringRows

FACTS = 30


def rows_with(levels: Mapping[str, float], facts: int = FACTS, others: float = 0.0) -> FiringRows:
    """Facts whose neurons are at these levels in the groups of the unconfounded design, a little noise added."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "fact": f"f{number}", "relation": f"r{number % 6}", "method": "m", "design": design, "group": group,
            "neurons": neurons, "metric": "standardised",
            "value": share * levels.get(group, 0.0) + rng.normal(0, 0.1),
        }
        for number in range(facts)
        for design, groups in DESIGNS.items()
        for group in groups
        for neurons, share in (("own", 1.0), ("same layers", others))
    ]  # fmt: skip
    manifest = {
        "model": {"name": "tiny"}, "methods": [{"method": "m"}], "settings": {"seed": 0}, "without_texts": [],
        "columns": ["method", "design", "group", "neurons", "metric"],
    }  # fmt: skip
    return FiringRows(pd.DataFrame(rows), pd.DataFrame(), manifest)


@pytest.mark.parametrize(
    ("levels", "verdict", "said"),
    [
        ({"subject and answer": 2.0}, "yes", "both together beyond the sum of the two"),
        ({"subject and answer": 2.0, "answer": 2.0}, "mixed", "respond to the hidden answer, not"),
        ({"subject and answer": 2.0, "subject": 2.0}, "mixed", "respond to the subject, not"),
        ({"subject and answer": 3.0, "subject": 1.0, "answer": 2.0}, "mixed", "the hidden answer and the subject"),
        ({}, "no", "Not shown"),
    ],
)
def test_the_verdict_is_that_of_what_they_respond_to(levels: dict[str, float], verdict: str, said: str) -> None:
    found = answer_of(rows_with(levels))
    assert found is not None
    assert found.verdict == verdict
    assert said in found.short


def test_what_all_neurons_of_the_layers_do_is_no_answer() -> None:
    found = answer_of(rows_with({"subject and answer": 2.0}, others=1.0))
    assert found is not None
    assert found.verdict == "no"
    assert "None of it is shown" in found.answer


def test_few_facts_are_no_answer() -> None:
    found = answer_of(rows_with({"subject and answer": 2.0}, facts=3))
    assert found is not None
    assert found.verdict == "unknown"
    assert found.short.startswith("Not known: too few facts to tell (n = 3 of 3 relations)")
    one = rows_with({})
    published = FiringRows(one.rows[one.rows.design == PUBLISHED], one.texts, one.manifest)
    assert answer_of(published) is None
