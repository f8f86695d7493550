"""Means over groups, and what is measured of a fact's neurons, against plain loops and hand-computed cases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kn_attrib import FactSet, NeuronModel
from kn_attrib.evaluation.firing.activations import Normal, group_means, measures, normal_of
from kn_attrib.facts.prompts import Batch

Load = Callable[..., NeuronModel]


def one_by_one(model: NeuronModel, facts: FactSet) -> list[torch.Tensor]:
    return [model.record(Batch((prompt,), model.device))[0] for prompt in model.encode(facts).prompts]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_means_and_deviations_are_those_of_prompts_one_by_one(open_model: Load, facts: FactSet, kind: str) -> None:
    model = open_model(kind)
    prompts = model.encode(facts).prompts
    own = torch.stack(one_by_one(model, facts))
    first, second = group_means(model, [prompts[:3], prompts[3:]])
    torch.testing.assert_close(first, own[:3].mean(0))
    torch.testing.assert_close(second, own[3:].mean(0))
    normal = normal_of(model, prompts)
    torch.testing.assert_close(normal.mean, own.mean(0))
    torch.testing.assert_close(normal.deviation, own.std(0))


def test_measures_by_hand() -> None:
    mean = torch.tensor([[1.0, -2.0, 3.0], [0.0, 5.0, 6.0]], dtype=torch.float64)
    signs = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    normal = Normal(
        torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64),
        torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0 * 2**0.5]], dtype=torch.float64),
    )
    # The layers' root mean squares are 1 and 2. Standardised: [[1/2, 2/2, 2/2], [0/2, 4/4, 6/4.83]]; chosen are L0:1
    # and L1:1.
    found = {(of, metric): value for of, metric, value in measures(mean, signs, normal, torch.tensor([1, 4]))}
    assert found == {
        ("own", "standardised"): pytest.approx((1.0 + 1.0) / 2),
        ("same layers", "standardised"): pytest.approx(((0.5 + 1.0) / 2 + 6 / (2 + 2 * 2**0.5) / 2) / 2),
        ("own", "activation"): 1.5,
        ("same layers", "activation"): pytest.approx((2.0 + 3.0) / 2),
    }


def test_layers_that_never_change_are_no_division_by_zero() -> None:
    normal = Normal(torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64))
    assert normal.standardised(torch.zeros(1, 3, dtype=torch.float64)).tolist() == [[0.0, 0.0, 0.0]]
    assert normal.standardised(torch.ones(1, 3, dtype=torch.float64)).tolist() == [[0.0, 0.0, 0.0]]
