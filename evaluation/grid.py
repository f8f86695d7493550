"""Ablation studies: the same comparison under every combination of some settings, and each setting's main effect."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from kn_attrib.errors import ConfigError, StoreError, unknown
from kn_attrib.evaluation.comparison import HEADLINE, Comparison, interval_text
from kn_attrib.evaluation.harness import compare
from kn_attrib.evaluation.inference import holm, paired_difference
from kn_attrib.evaluation.statistics import mean_weights, resampled_weights
from kn_attrib.facts import Fact
from kn_attrib.model import NeuronModel
from kn_attrib.registry import make_scorer, with_params
from kn_attrib.store import read_json, write_json, write_parquet
from kn_attrib.unit_methods import Method, make_method

SETTINGS = ("threshold", "share", "refinement", "factor", "max_prompts", "interventions", "normalised", "seed")
RESAMPLES = 10_000


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


@dataclass(frozen=True)
class Grid:
    """Comparisons under every combination of levels.

    Attributes
    ----------
    rows : flat rows as in `Comparison`, with a column for each factor, named as the factor is.
    manifest : factors, methods, settings, and each combination's own manifest.
    """

    rows: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def factors(self) -> dict[str, list[Any]]:
        """Levels of each factor."""
        return dict(self.manifest["factors"])

    def effects(self, selection: str = "refined", metric: str = HEADLINE) -> pd.DataFrame:
        """Main effects on the facts themselves: the mean over all other factors, level by level.

        Columns: ``factor, method, level, mean, low, high, n`` and, against the factor's first level on the same facts,
        ``difference, difference_low, difference_high, p`` (sign-flip test over relations, Holm over the table).

        Parameters
        ----------
        selection : ``"refined"`` or ``"k=…"``.
        metric : see `Comparison.table`.

        Raises
        ------
        ConfigError : it was not measured.
        """
        for column, value in (("selection", selection), ("metric", metric)):
            if value not in set(self.rows[column]):
                raise ConfigError(unknown(column, value, self.rows[column].unique()))
        rows = self.rows
        rows = rows[(rows.selection == selection) & (rows.metric == metric) & (rows.neurons == "method")]
        rows = rows[(rows.group == "target") & rows.method.isin(self.manifest["methods"])]
        if "interventions" not in self.factors:
            rows = rows[rows.intervention == rows.intervention.iloc[0]]
        found = [
            self._level(rows[rows.method == method], factor, method, level)
            for factor in self.factors
            for method in self._concerned(factor)
            for level in self.factors[factor]
        ]
        table = pd.DataFrame(found)
        compared = table.p.notna()
        table.loc[compared, "p"] = holm(table.p[compared].tolist())
        effects: pd.DataFrame = table
        return effects

    def _concerned(self, factor: str) -> list[str]:
        """Methods that a factor changes."""
        methods: list[str] = self.manifest["methods"]
        return [factor.split(".")[0]] if "." in factor else methods

    def _level(self, rows: pd.DataFrame, factor: str, method: str, level: Any) -> dict[str, Any]:
        seed = int(self.manifest["settings"].get("seed", 0))
        wide = rows.pivot_table(index=["fact", "relation"], columns=factor, values="value", sort=False).dropna()
        relations = [str(r) for r in wide.index.get_level_values("relation")]
        values = wide[str(level)].to_numpy()
        low, high = np.quantile(resampled_weights(relations, RESAMPLES, seed) @ values, [0.025, 0.975])
        row = {"factor": factor, "method": method, "level": str(level), "mean": float(mean_weights(relations) @ values),
               "low": float(low), "high": float(high), "n": len(values), "difference": np.nan,
               "difference_low": np.nan, "difference_high": np.nan, "p": np.nan}  # fmt: skip
        first = str(self.factors[factor][0])
        if str(level) != first:
            gap = paired_difference(values, wide[first].to_numpy(), relations, seed)
            row |= {"difference": gap.mean, "difference_low": gap.low, "difference_high": gap.high, "p": gap.p}
        return row

    def table(self, selection: str = "refined", metric: str = HEADLINE) -> pd.DataFrame:
        """`effects` as text."""
        found = self.effects(selection, metric)
        percent = metric in (HEADLINE, "mean_relative_change", "flip")
        text: pd.DataFrame = found[["method", "level"]].set_index(pd.Index(found.factor, name="factor"))
        for title, columns in (
            ("mean [95 %]", ["mean", "low", "high"]),
            ("against the first level", ["difference", "difference_low", "difference_high"]),
        ):
            text[title] = [
                interval_text(float(m), float(low), float(high), percent) for m, low, high in found[columns].to_numpy()
            ]
        text["p (Holm)"] = ["–" if np.isnan(p) else f"{p:.3f}" for p in found.p]
        text["facts"] = found.n.tolist()
        return text

    def plot(self, selection: str = "refined") -> Figure:
        """Main effects: the mean at each level, with 95 % intervals, a panel for each factor."""
        from kn_attrib.evaluation.figures import main_effects

        return main_effects(self.effects(selection))

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page; returns its path."""
        from kn_attrib.evaluation.report import write_grid_report

        return write_grid_report(self, Path(path))

    def save(self, folder: str | Path) -> Path:
        """Write ``grid.parquet`` and ``grid.json``; returns the folder."""
        write_parquet(Path(folder) / "grid.parquet", self.rows)
        write_json(Path(folder) / "grid.json", self.manifest)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Grid:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the folder holds no grid.
        """
        source = Path(folder)
        if not (source / "grid.json").is_file():
            raise StoreError(f"{source} holds no grid; expected grid.json and grid.parquet.")
        return cls(pd.read_parquet(source / "grid.parquet"), read_json(source / "grid.json"))


def compare_grid(
    model: NeuronModel,
    facts: str | Path | Sequence[Fact],
    methods: Sequence[str],
    factors: Sequence[Factor],
    *,
    folder: str | Path | None = None,
    **settings: Any,
) -> Grid:
    """`compare` under every combination of the factors' levels (a full factorial design).

    Parameters
    ----------
    model, facts, methods : as in `compare`; methods by name.
    factors : what varies. A factor ``"method.parameter"`` varies that method alone.
    folder : each combination is kept there as a comparison of its own, and a killed run goes on where it was.
    settings : of `compare`, the same in all combinations.

    Raises
    ------
    ConfigError : a factor names a method that is not compared, or two factors are the same.
    MethodError : a parameter that the method does not have.
    """
    names = [factor.name for factor in factors]
    if len(set(names)) < len(names) or not names:
        raise ConfigError(f"grid factors are {names}; expected different ones, at least one.")
    labels = [_label(method) for method in methods]
    for factor in factors:
        if "." in factor.name and factor.name.split(".")[0] not in labels:
            raise ConfigError(unknown("method in --grid", factor.name.split(".")[0], labels))
    rows, manifests = [], []
    for levels in itertools.product(*(factor.levels for factor in factors)):
        chosen = dict(zip(names, levels, strict=True))
        found = _combination(model, facts, methods, chosen, folder, settings)
        rows.append(found.rows.assign(**{name: str(level) for name, level in chosen.items()}))
        manifests.append({"levels": {n: str(v) for n, v in chosen.items()}, "manifest": found.manifest})
    manifest = {
        "factors": {f.name: list(f.levels) for f in factors}, "methods": labels,
        "settings": {k: v for k, v in settings.items() if v is not None}, "combinations": manifests,
    }  # fmt: skip
    grid = Grid(pd.concat(rows, ignore_index=True), manifest)
    if folder is not None:
        grid.save(folder)
    return grid


def _label(method: str) -> str:
    return make_method(method).label or make_scorer(method).name


def _combination(
    model: NeuronModel, facts: str | Path | Sequence[Fact], methods: Sequence[str], chosen: Mapping[str, Any],
    folder: str | Path | None, settings: Mapping[str, Any],
) -> Comparison:  # fmt: skip
    own = {name: level for name, level in chosen.items() if "." not in name}
    if "interventions" in own:
        own["interventions"] = (own["interventions"],)
    varied = [_varied(method, chosen) for method in methods]
    place = None
    if folder is not None:
        place = Path(folder) / "combinations" / ",".join(f"{name}={level}" for name, level in chosen.items())
        if (place / "manifest.json").is_file():
            found = Comparison.load(place)
            if found.complete:
                return found
    return compare(model, facts, varied, folder=place, **{**settings, **own})


def _varied(method: str, chosen: Mapping[str, Any]) -> Method:
    """A method with the parameters that its factors give it."""
    made, label = make_method(method), _label(method)
    own = f"{label}."
    given = {name.removeprefix(own): level for name, level in chosen.items() if name.startswith(own)}
    return Method(with_params(type(made.scorer), made.scorer.params() | given), made.units, label)
