"""What is drawn depends on the seed alone, the seed is recorded, and nobody else's random numbers are touched."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kn_attrib import FactSet, NeuronModel
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation import Plant, Recipe, parameter_randomisation, plant
from kn_attrib.evaluation.planted.build import build_suite
from kn_attrib.randomness import checked_seed
from small_results import small_benchmark, small_comparison, small_deletion, small_grid, small_injection

Drawn = tuple[pd.DataFrame, int]
"""What was drawn, and the seed that it says."""


def comparison(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = small_comparison(model, facts, seed=seed)
    return found.rows, found.seed


def grid(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = small_grid(model, facts, seed=seed, controls=("random",))
    return found.rows, found.manifest["settings"]["seed"]


def injection(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = small_injection(model, facts, seed)
    return found.neurons, found.seed


def deletion(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = small_deletion(model, facts, seed)
    return found.summary, found.seed


def planted(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = small_benchmark(seed)
    return found.summary, found.seed


def randomisation(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = parameter_randomisation(model, facts, "activation", seed=seed)
    return found, found.attrs["seed"]


def made(model: NeuronModel, facts: FactSet, seed: int) -> Plant:
    recipe = Recipe(value_steps=2, steps=2)
    return plant(model, facts[0], [(0, 3), (1, 5)], others=facts[1:], recipe=recipe, seed=seed)


def planting(model: NeuronModel, facts: FactSet, seed: int) -> Drawn:
    found = made(model, facts, seed)
    assert found.seed is not None
    return pd.DataFrame(found.keys.flatten(1).numpy()), found.seed


EVERY = (comparison, grid, injection, deletion, planted, randomisation, planting)


def states() -> list[Any]:
    """Of the random numbers that a process has."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002  # the global one is what is watched
    return [torch.get_rng_state().tolist(), numpy["state"]["pos"], numpy["state"]["key"].tolist(), random.getstate()]


@pytest.mark.parametrize("draw", EVERY)
def test_what_is_drawn_depends_on_the_seed_alone(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, draw: Callable[[NeuronModel, FactSet, int], Drawn]
) -> None:
    model = load_tiny("masked", "float32")
    before = states()
    first, said = draw(model, facts, 3)
    assert states() == before
    torch.rand(1)
    random.random()  # another state of the global numbers
    again, also = draw(model, facts, np.int64(3))  # an integer as NumPy has it
    pd.testing.assert_frame_equal(first, again)
    other, otherwise = draw(model, facts, 4)
    assert not first.equals(other)
    assert (said, also, otherwise) == (3, 3, 4)
    assert type(also) is int


@pytest.mark.parametrize("draw", [*EVERY, lambda model, facts, seed: build_suite("zoo:bert-facts", seed)])
@pytest.mark.parametrize("seed", [-1, 0.5, True, "1", 2**63])
def test_what_is_no_seed_is_refused(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, draw: Callable[[NeuronModel, FactSet, Any], Any], seed: Any
) -> None:
    with pytest.raises(ConfigError, match=r"seed is .*; expected a whole number from 0 to"):
        draw(load_tiny("masked", "float32"), facts, seed)
    assert checked_seed(2**63 - 1) == 2**63 - 1


def test_a_saved_plant_says_its_seed(load_tiny: Callable[..., NeuronModel], facts: FactSet, tmp_path: Any) -> None:
    made(load_tiny("masked", "float32"), facts, 5).save(tmp_path / "mine")
    assert Plant.load(tmp_path / "mine").seed == 5
