"""Making the planted benchmark, as ``kn-attrib plants`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from kn_attrib.evaluation.planted.axes import AXES, TRIES, PlantDraws, wanted, writings
from kn_attrib.evaluation.planted.plant import Target
from kn_attrib.evaluation.planted.planter import Planter
from kn_attrib.evaluation.planted.recipe import Recipe
from kn_attrib.evaluation.planted.suite import Division, Item, Suite, passed, simple_facts
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.loading import load_model
from kn_attrib.randomness import checked_seed
from kn_attrib.store import versions


def build_suite(
    name: str, seed: int = 0, axes: Sequence[str] = tuple(AXES), progress: Callable[[str], object] | None = None
) -> Suite:
    """Plant, verify and keep what passes; a plant of several facts is kept if all of them pass.

    What fails is tried again with other draws, `TRIES` times as often as plants are wanted in all. Of the plants of an
    axis that are kept, the first and every third from there are for development, the others for testing.

    Parameters
    ----------
    name : of a base model, ``zoo:…``.
    seed : decides facts, answers, neurons and noise.
    axes : which axes to make.
    progress : called with a line per plant.
    """
    started = time.perf_counter()
    seed = checked_seed(seed)
    model = load_model(name)
    facts = simple_facts(load_facts("world"))
    planter = Planter(model, facts, Recipe(seed=seed))
    draws = PlantDraws(planter, facts, seed)
    items: list[Item] = []
    tried: list[dict[str, Any]] = []
    for axis in axes:
        kept = 0
        for turn in range(TRIES * wanted(axis)):
            if kept == wanted(axis):
                break
            label = f"{axis}-{turn}"
            plant = planter.plant(writings(draws, axis, turn))
            # By its place among those kept, so that what fails thins out neither split.
            split: Division = "test" if kept % 3 else "development"
            good = [passed(target, axis) for target in plant.targets]
            tried += [_row(label, axis, split, t, ok) for t, ok in zip(plant.targets, good, strict=True)]
            outcome = "dropped"
            if all(good):
                items.append(Item(label, axis, split, plant))
                kept += 1
                outcome = "kept"
            if progress is not None:
                progress(f"{name} {label} {outcome} ({kept} of {wanted(axis)})")
    about = {
        "seed": seed,
        "recipe": asdict(planter.recipe),
        "tried": tried,
        "versions": versions(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return Suite(name, model.digest, tuple(items), about)


def _row(label: str, axis: str, split: str, target: Target, ok: bool) -> dict[str, Any]:
    """What is kept about a planted fact, also of plants that are dropped."""
    row = {
        "plant": label,
        "axis": axis,
        "split": split,
        "relation": target.fact.relation,
        "fact": target.fact.id,
        "passed": ok,
    }
    if target.check is not None:
        row |= {name: round(value, 4) for name, value in asdict(target.check).items()}
    return row
