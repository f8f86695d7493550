"""What the two published protocols share: rankings, shares of neurons, rows, and their result on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from kn_attrib.errors import ConfigError, StoreError, unknown
from kn_attrib.evaluation.comparison import check_folder, interval_text
from kn_attrib.evaluation.inference import Difference, paired_difference
from kn_attrib.evaluation.statistics import summarise
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scorer import Scorer
from kn_attrib.store import read_run, write_run
from kn_attrib.unit_methods import labelled, make_method

FRAMES = ("rows", "facts", "neurons")
CHANCE = "random"
"""The method that every other one is held against."""


def share_of(total: int, share: float) -> int:
    """How many of ``total`` neurons a share is: rounded, and at least one.

    >>> share_of(320, 0.05), share_of(320, 0.001)
    (16, 1)

    Raises
    ------
    ConfigError : the share is not above 0 and up to 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"ratio is {share}; expected a share of the neurons, above 0 and up to 1 (0.01 is 1 %).")
    return max(1, round(total * share))


def top_of_layers(values: Tensor, share: float, first_layer: int = 0) -> NeuronSet:
    """The highest scores of each layer, ``max(1, round(share · neurons))`` of them (ties: the earlier neuron).

    Parameters
    ----------
    values : ``[layer, neuron]``.
    first_layer : layers below it give none.
    """
    count = share_of(values.shape[1], share)
    order = values.double().sort(dim=1, descending=True, stable=True).indices[:, :count].tolist()
    return NeuronSet(Neuron(layer, i) for layer, row in enumerate(order) for i in row if layer >= first_layer)


def top_of_model(values: Tensor, share: float) -> NeuronSet:
    """The highest scores of the whole model (parameters as in `top_of_layers`)."""
    order = values.double().flatten().sort(descending=True, stable=True).indices
    chosen = order[: share_of(values.numel(), share)].tolist()
    return NeuronSet(Neuron(*divmod(i, values.shape[1])) for i in chosen)


def recall(predicted: NeuronSet, truth: NeuronSet) -> float:
    """``|predicted ∩ truth| / |truth|``; not a number where there is no truth.

    >>> recall(NeuronSet([(0, 1), (0, 2), (1, 4)]), NeuronSet([(0, 2), (1, 5)]))
    0.5
    """
    return len(predicted & truth) / len(truth) if len(truth) else math.nan


def scorers_of(methods: Sequence[str | type[Scorer] | Scorer]) -> dict[str, Scorer]:
    """Scorers of neurons by label.

    Raises
    ------
    MethodError : a method is unknown.
    ConfigError : there is none, two are the same, or one scores other units than neurons.
    """
    found = labelled([make_method(method) for method in methods])
    for label, method in found.items():
        if method.units is not None:
            raise ConfigError(
                f"{label!r} scores other units; this protocol changes value vectors, so name it without '@…'."
            )
    return {label: method.scorer for label, method in found.items()}


def jsonable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from JSON: lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


@dataclass(frozen=True)
class ProtocolResult:
    """What a protocol measured.

    Attributes
    ----------
    rows : one row per number: ``fact, relation, method``, further columns that say of what, ``metric, value``.
    facts : one row per fact given: used or why not, and what was done to it.
    neurons : one row per neuron injected or dropped.
    manifest : protocol, model, settings, methods with their cost, versions, seed.
    """

    rows: pd.DataFrame
    facts: pd.DataFrame
    neurons: pd.DataFrame
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        name, model = self.manifest["protocol"], self.manifest["model"]["name"]
        return f"ProtocolResult({name} on {model}: {len(self.methods)} methods, {len(self.rows)} rows)"

    @property
    def methods(self) -> list[str]:
        """Method labels in the order given."""
        return [m["method"] for m in self.manifest["methods"]]

    @property
    def columns(self) -> list[str]:
        """The columns of `rows` that say what a number is of."""
        return list(self.manifest["columns"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Mean over facts (within relations, then over relations), 95 % bootstrap interval and n of every cell."""
        wide = self._wide(self.rows, self.columns)
        found = summarise(wide.reset_index(drop=True), self._relations(wide), seed=self.manifest["settings"]["seed"])
        summary: pd.DataFrame = found.reset_index()
        return summary

    def cell(self, **where: object) -> pd.DataFrame:
        """Rows of `summary` with the given column values.

        Raises
        ------
        ConfigError : an unknown column, or a value that no row has.
        """
        return self._chosen(self.summary, where)

    def against(self, reference: str = CHANCE, **where: object) -> dict[str, Difference]:
        """Paired difference of every other method to the reference, in one cell.

        Raises
        ------
        ConfigError : the reference was not run, or the values do not name one cell.
        """
        if reference not in self.methods:
            raise ConfigError(unknown("method", reference, self.methods))
        some = self._chosen(self.rows, where)
        if some.duplicated(["fact", "method"]).any():
            raise ConfigError(f"{where} names several cells; give a value to each of {self.columns[1:]}.")
        wide = self._wide(some, ["method"]).dropna()
        relations = self._relations(wide).tolist()
        base, seed = wide[reference].to_numpy(), self.manifest["settings"]["seed"]
        return {
            method: paired_difference(wide[method].to_numpy(), base, relations, seed)
            for method in self.methods if method != reference
        }  # fmt: skip

    def table(self, column: str, percent: bool = True, **where: object) -> pd.DataFrame:
        """Methods × the values of a column: mean with 95 % interval as text.

        Raises
        ------
        ConfigError : an unknown column or value, or the values leave more than one cell for each of the column's.
        """
        found = self.cell(**where)
        bounds = zip(found["mean"], found["low"], found["high"], strict=True)
        cells = found.assign(text=[interval_text(*bound, percent) for bound in bounds])
        if cells.duplicated(["method", column]).any():
            raise ConfigError(
                f"{where} names several cells; give a value to each of {self.columns[1:]} but {column!r}."
            )
        shown = cells.set_index(["method", column]).text.unstack().reindex(self.methods)  # noqa: PD010  # no duplicates
        table: pd.DataFrame = shown[list(found[column].unique())].rename_axis(columns=None)
        return table

    def _chosen(self, frame: pd.DataFrame, where: dict[str, object]) -> pd.DataFrame:
        for column, value in where.items():
            if column not in self.columns:
                raise ConfigError(unknown("column", column, self.columns))
            known = frame[column].unique()
            if value not in known:
                raise ConfigError(unknown(column, str(value), map(str, known)))
            frame = frame[frame[column] == value]
        return frame

    def _wide(self, rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        wide: pd.DataFrame = rows.pivot_table(index=["fact", "relation"], columns=columns, values="value", sort=False)
        return wide

    def _relations(self, wide: pd.DataFrame) -> pd.Series:
        relations: pd.Series = wide.index.get_level_values("relation").to_series().reset_index(drop=True)
        return relations

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write rows, facts, neurons (Parquet) and ``manifest.json``; returns the folder.

        Raises
        ------
        StoreError : the folder holds something already (unless ``overwrite``), or cannot be written.
        """
        target = check_folder(Path(folder), overwrite)
        return write_run(target, {name: getattr(self, name) for name in FRAMES}, self.manifest)

    @classmethod
    def load(cls, folder: str | Path) -> ProtocolResult:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the folder does not hold a saved run of a protocol.
        """
        frames, manifest = read_run(Path(folder), FRAMES, "run of a protocol")
        if "protocol" not in manifest:
            raise StoreError(f"{folder} holds no run of a protocol; expected what ProtocolResult.save wrote.")
        return cls(**frames, manifest=manifest)
