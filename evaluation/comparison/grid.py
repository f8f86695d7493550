"""Ablation studies: the same comparison under every combination of some settings, and each setting's main effect."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kn_attrib.errors import ConfigError, check_kind, listed, unknown
from kn_attrib.evaluation.comparison.compare import compare
from kn_attrib.evaluation.comparison.settings import Settings
from kn_attrib.evaluation.records.folder import open_folder
from kn_attrib.evaluation.records.journal import Journal
from kn_attrib.evaluation.records.provenance import identity_of
from kn_attrib.evaluation.report.comparison import Comparison
from kn_attrib.evaluation.report.grid import GRID, Grid
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.randomness import checked_seed
from kn_attrib.scoring.method_specs import Method, make_method
from kn_attrib.scoring.registry import make_scorer, with_params
from kn_attrib.store import read_record

COMBINATIONS = "combinations"
"""Name of the folder that holds each combination's comparison."""
SETTINGS = ("threshold", "share", "refinement", "factor", "max_prompts", "interventions", "normalised", "seed")


@dataclass(frozen=True)
class Factor:
    """One setting and the levels it takes.

    Parameters
    ----------
    name : a setting of `compare` (one of `SETTINGS`), or ``"method.parameter"``.
    levels : at least one; the first is what others are compared with.

    Raises
    ------
    ConfigError : unknown setting, or no level, or one level twice.
    """

    name: str
    levels: tuple[Any, ...]

    def __post_init__(self) -> None:
        check_kind("a factor's name", self.name, str)
        object.__setattr__(self, "levels", listed(f"grid {self.name}: levels", self.levels))
        if "." not in self.name and self.name not in SETTINGS:
            raise ConfigError(unknown("setting", self.name, SETTINGS) + " Or name a method's parameter: METHOD.PARAM.")
        if not self.levels or len(set(map(repr, self.levels))) < len(self.levels):
            raise ConfigError(
                f"grid {self.name}: levels are {list(self.levels)}; expected different ones, at least one."
            )

    @classmethod
    def parse(cls, text: str) -> Factor:
        """From ``"name=a,b,c"``; levels are read as YAML reads them.

        >>> Factor.parse("integrated_gradients.steps=4,12")
        Factor(name='integrated_gradients.steps', levels=(4, 12))
        """
        name, equals, levels = text.partition("=")
        if not equals:
            raise ConfigError(f"grid {text!r}; expected NAME=LEVEL,LEVEL,… such as integrated_gradients.steps=4,12.")
        return cls(name.strip(), tuple(yaml.safe_load(level) for level in levels.split(",") if level.strip()))


@torch_defaults()
def compare_grid(
    model: NeuronModel,
    facts: str | Path | Sequence[Fact],
    methods: Sequence[str],
    factors: Sequence[Factor],
    *,
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Grid:
    """`compare` under every combination of the factors' levels (a full factorial design).

    Parameters
    ----------
    model, facts, methods : as in `compare`; methods by name.
    factors : what varies. A factor ``"method.parameter"`` varies that method alone.
    folder : each combination is kept there as a comparison of its own, and a killed run goes on where it was.
    overwrite : start anew, whatever the folder holds.
    progress : show progress bars.
    settings : of `compare`, the same in all combinations.

    Raises
    ------
    ConfigError : a factor names a method that is not compared, two factors are the same, a setting is unknown, or one
        setting is given as such and as a factor.
    MethodError : a parameter that the method does not have.
    StoreError : the folder holds something else, such as a grid with other settings (unless ``overwrite``).
    """
    check_model(model)
    names = [factor.name for factor in factors]
    if len(set(names)) < len(names) or not names:
        raise ConfigError(f"grid factors are {names}; expected different ones, at least one.")
    _check_settings(factors, settings)
    labels = [_label(method) for method in listed("methods", methods)]
    for factor in factors:
        if "." in factor.name and factor.name.split(".")[0] not in labels:
            raise ConfigError(unknown("method in --grid", factor.name.split(".")[0], labels))
    if "seed" in settings:
        settings["seed"] = checked_seed(settings["seed"])
    given = load_facts(facts)
    identity = _identity(model, given, methods, factors, settings)
    journal = _opened(folder, overwrite, identity)
    rows, manifests = [], []
    with _kept(journal):
        for combination in itertools.product(*(factor.levels for factor in factors)):
            levels = dict(zip(names, combination, strict=True))
            found = _combination(model, given, methods, levels, folder, progress, settings)
            named = {name: str(level) for name, level in levels.items()}
            rows.append(found.rows.assign(**named))
            manifests.append({"levels": named, "manifest": found.manifest})
    manifest = {
        "factors": {f.name: list(f.levels) for f in factors},
        "methods": labels,
        "settings": {k: v for k, v in settings.items() if v is not None},
        "combinations": manifests,
        "identity": identity,
    }
    grid = Grid(pd.concat(rows, ignore_index=True), manifest)
    if folder is not None:
        grid.save(folder)
    journal.close()
    return grid


def _check_settings(factors: Sequence[Factor], settings: Mapping[str, Any]) -> None:
    """Raise on settings that `compare` does not take, and on those that vary."""
    known = {field.name for field in fields(Settings)} | {"progress"}
    for name in settings:
        if name not in known:
            raise ConfigError(unknown("setting", name, known))
    for factor in factors:
        if factor.name in settings:
            raise ConfigError(
                f"{factor.name} is {settings[factor.name]!r}, and a factor of the grid with the levels "
                f"{list(factor.levels)}; give one of them."
            )


def _identity(
    model: NeuronModel, facts: FactSet, methods: Sequence[str], factors: Sequence[Factor], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the grid's rows depend on, as JSON holds it."""
    levels = {factor.name: [str(level) for level in factor.levels] for factor in factors}
    made = {_label(method): make_method(method) for method in methods}
    found = identity_of(model, facts, settings, made, factors=levels)
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def _opened(folder: str | Path | None, overwrite: bool, identity: Mapping[str, Any]) -> Journal:
    """The journal of the grid; combinations of another grid are not taken for its own."""
    if folder is None:
        return open_folder(None, overwrite)
    place = Path(folder)
    if overwrite:
        shutil.rmtree(place / COMBINATIONS, ignore_errors=True)
    finished = not overwrite and (place / GRID).is_file() and read_record(place / GRID).get("identity") == identity
    journal = Journal(place) if finished else open_folder(place, overwrite)
    journal.open(identity)
    return journal


@contextmanager
def _kept(journal: Journal) -> Iterator[None]:
    """As `Journal.kept`; what is finished of a grid is in the folders of its combinations."""
    try:
        yield
    except Exception:
        made = None if journal.folder is None else journal.folder / COMBINATIONS
        if made is not None and not any(path.is_file() for path in made.rglob("*")):
            shutil.rmtree(made, ignore_errors=True)
            journal.close()
        raise


def _label(method: str) -> str:
    return make_method(method).label or make_scorer(method).name


def _combination(
    model: NeuronModel,
    facts: FactSet,
    methods: Sequence[str],
    levels: Mapping[str, Any],
    folder: str | Path | None,
    progress: bool,
    settings: Mapping[str, Any],
) -> Comparison:
    """The comparison with these levels, run or read."""
    own = {name: level for name, level in levels.items() if "." not in name}
    if "interventions" in own:
        own["interventions"] = (own["interventions"],)
    varied = [_varied(method, levels) for method in methods]
    place = None
    if folder is not None:
        place = Path(folder) / COMBINATIONS / ",".join(f"{name}={level}" for name, level in levels.items())
        if (place / "manifest.json").is_file():
            found = Comparison.load(place)
            if found.complete:
                return found
    return compare(model, facts, varied, folder=place, progress=progress, **{**settings, **own})


def _varied(method: str, levels: Mapping[str, Any]) -> Method:
    """A method with the parameters that its factors give it."""
    made = make_method(method)
    label = _label(method)
    own = f"{label}."
    given = {name.removeprefix(own): level for name, level in levels.items() if name.startswith(own)}
    for name in given:
        before, default = (of.get(name) for of in (made.scorer.params(), made.scorer.defaults()))
        if before != default:
            raise ConfigError(
                f"{method!r} says that {name} is {before!r}, and {own}{name} is a factor of the grid; give one of them."
            )
    scorer = with_params(type(made.scorer), made.scorer.params() | given)
    return Method(scorer, made.units, label)
