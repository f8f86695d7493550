"""The shipped planted benchmark: verified plants of base models, by axis of difficulty."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from kn_attrib.errors import ConfigError, StoreError, unknown
from kn_attrib.evaluation.planted.plant import Plant, Target, load_plants, save_plants
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.models.loading import load_model
from kn_attrib.models.neuron_model import NeuronModel

SHIPPED = Path(__file__).parent / "shipped"
MODELS = ("zoo:bert-facts", "zoo:gpt2-facts", "zoo:llama-facts")
Division = Literal["development", "test"]
DIVISIONS = ("development", "test")
DECOYS_AT = 0.15
"""Largest share of the probability that decoys may carry, or hold back."""
SATURATED_AT = 0.2
"""Largest share of the probability that one neuron of a saturated plant, or of one with a backup, may carry alone."""
NEEDED_AT = 0.2
"""Least share of the probability that the silence of either part of an additive plant costs."""
BROAD_AT = 0.5
"""Least activation of broad neurons on the relation's other facts, relative to the planted one."""


@dataclass(frozen=True)
class Item:
    """A plant of the benchmark.

    Attributes
    ----------
    name, axis, split : what it is called, what makes it hard, and what it may be used for.
    plant : the weights, and the planted facts.
    """

    name: str
    axis: str
    split: Division
    plant: Plant


@dataclass(frozen=True)
class Suite:
    """The verified plants of one base model.

    Attributes
    ----------
    model, sha256 : the base model and the digest of its weights.
    items : the plants.
    about : seed, recipe, and the checks of all plants that were tried, also of those that failed.
    """

    model: str
    sha256: str
    items: tuple[Item, ...]
    about: dict[str, Any]

    def of(self, split: str = "all") -> tuple[Item, ...]:
        """The plants of a split.

        Raises
        ------
        ConfigError : there is no such split.
        """
        if split not in (*DIVISIONS, "all"):
            raise ConfigError(unknown("split", split, (*DIVISIONS, "all")))
        return tuple(item for item in self.items if split in ("all", item.split))

    def base(self) -> NeuronModel:
        """The base model.

        Raises
        ------
        StoreError : its weights are not those that the plants were made for.
        """
        model = load_model(self.model)
        if model.digest != self.sha256:
            raise StoreError(
                f"the plants were made for {self.model} with other weights; make them anew with kn-attrib plants."
            )
        return model

    def checks(self) -> pd.DataFrame:
        """One row per fact that was tried: plant, axis, split, relation, fact, whether it passed, what was measured."""
        frame: pd.DataFrame = pd.DataFrame(self.about["tried"])
        return frame

    def save(self, folder: str | Path) -> Path:
        """Write ``NAME.safetensors`` and ``NAME.json`` into the folder; returns the folder."""
        record = self.about | {
            "model": self.model,
            "sha256": self.sha256,
            "items": {i.name: {"axis": i.axis, "split": i.split} for i in self.items},
        }
        save_plants({item.name: item.plant for item in self.items}, Path(folder) / _file(self.model), record)
        return Path(folder)


def load_suite(model: str, folder: str | Path = SHIPPED) -> Suite:
    """The plants of a base model: those that ship with the package, or those in a folder.

    Raises
    ------
    ConfigError : there are none for this model.
    StoreError : the files are not those of a suite.
    """
    source = Path(folder)
    known = sorted(f"zoo:{file.stem}" for file in source.glob("*.json"))
    if model not in known:
        raise ConfigError(
            f"{unknown('planted benchmark of model', model, known)} Others are made with kn-attrib plants."
        )
    plants, about = load_plants(source / _file(model))
    try:
        items = tuple(_item(name, plants[name], about["items"][name]) for name in plants)
        for name, kind in (("model", str), ("sha256", str), ("seed", int), ("tried", list)):
            if not isinstance(about[name], kind):
                raise TypeError(f"{name!r} is {about[name]!r}")
        if about["model"] != model:
            raise ValueError(f"its plants are of {about['model']!r}")
        return Suite(about["model"], about["sha256"], items, about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{source}: not a planted benchmark of {model} ({error!r}); make it anew with kn-attrib plants."
        ) from error


def _item(name: str, plant: Plant, about: dict[str, Any]) -> Item:
    axis, split = about["axis"], about["split"]
    if not isinstance(axis, str) or split not in DIVISIONS:
        raise ValueError(f"axis and split of {name!r} are {axis!r} and {split!r}")
    return Item(name, axis, split, plant)


def simple_facts(facts: FactSet) -> list[Fact]:
    """Facts with one right answer of one word that does not stand in the subject, and with held-out texts."""
    return [f for f in facts if not f.is_ambiguous and not f.leaks_answer and len(f.answer.split()) == 1 and f.held_out]


def passed(target: Target, axis: str) -> bool:
    """The target's check passed, and it is what its axis says."""
    check = target.check
    if check is None or not check.passed or abs(check.decoys) > DECOYS_AT:
        return False
    if axis == "additive":
        return check.parts >= NEEDED_AT and check.broad >= BROAD_AT
    return axis not in ("saturated", "backup") or check.single <= SATURATED_AT


def _file(model: str) -> str:
    return model.split(":")[-1].replace("/", "--")
