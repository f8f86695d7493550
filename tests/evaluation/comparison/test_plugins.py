"""A method from outside that does more than score changes nothing that is measured of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from kn_attrib import Batch, Comparison, FactSet, NeuronModel, Scorer, compare
from kn_attrib.errors import MethodError
from kn_attrib.evaluation import answers
from kn_attrib.scoring.guarded import MethodWarning

ASKED: dict[str, Any] = {"keep": ("unknown",), "budgets": (3,), "dropout": (), "progress": False}
OTHERS = ["gradient_x_activation", "ablation"]


@dataclass(frozen=True)
class Littering(Scorer):
    """Leaves a hook that doubles the head's output, train mode, and other random numbers."""

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        activations = model.record(batch)
        head: Any = model.model.get_output_embeddings()
        head.register_forward_hook(lambda _, inputs, output: 2 * output)
        model.model.train()
        torch.rand(1)
        return activations


@dataclass(frozen=True)
class Exiting(Scorer):
    """Ends the process, once it has been tried on one prompt."""

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        if len(batch) > 1:
            raise SystemExit(0)
        return model.record(batch)


@dataclass(frozen=True)
class Constant(Scorer):
    """Tells no neuron from any other."""

    value: float = 0.0

    def score(self, model: NeuronModel, batch: Batch) -> Tensor:
        return torch.full_like(model.record(batch), self.value)


@pytest.fixture(scope="module")
def model(session_load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return session_load_tiny("masked", "float32")


def test_others_rows_are_the_same_and_the_manifest_says_what_was_put_back(
    model: NeuronModel, module_facts: FactSet, tmp_path: Path
) -> None:
    alone = compare(model, module_facts, OTHERS, **ASKED).rows
    with pytest.warns(MethodWarning, match="'Littering'"):
        beside = compare(model, module_facts, [Littering(), *OTHERS], **ASKED)
    rows = beside.rows[beside.rows.method.isin(alone.method)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone)
    beside.save(tmp_path / "run")
    for each in (beside, Comparison.load(tmp_path / "run")):
        littering, *others = each.manifest["methods"]
        assert [what.split(" of ")[0].split(" (")[0] for what in littering["put_back"]] == [
            "1 hooks or replaced forwards on modules",
            "train mode",
            "the global random numbers",
        ]
        assert not any("put_back" in other for other in others)


def test_a_method_that_exits_is_an_error_that_names_it(model: NeuronModel, module_facts: FactSet) -> None:
    with pytest.raises(MethodError, match=r"method 'Exiting' .* asked the program to exit \(0\)"):
        compare(model, module_facts, [Exiting(), *OTHERS], **ASKED)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_method_that_tells_no_neurons_apart_is_named_once(
    model: NeuronModel, module_facts: FactSet, recwarn: pytest.WarningsRecorder, value: float
) -> None:
    found = compare(model, module_facts, [Constant(value), "random", "greedy_ablation"], **ASKED)
    (label, *_) = found.methods
    (warned,) = recwarn.list
    assert issubclass(warned.category, MethodWarning)
    assert str(warned.message) == (
        f"{label} gave the same score to every neuron for all 4 facts: nothing can be told from its ranking."
    )
    assert not any("nan" in each.answer + each.short for each in answers(found))
    found.leaderboard()
    assert len(recwarn.list) == 1
