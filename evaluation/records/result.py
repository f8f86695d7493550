"""What every experiment's result is: flat rows, means of them with intervals, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from typing_extensions import Self

from kn_attrib.errors import ConfigError, StoreError, unknown
from kn_attrib.evaluation.records.folder import check_folder
from kn_attrib.evaluation.records.schema import check_saved, damaged
from kn_attrib.evaluation.records.text import interval_text
from kn_attrib.evaluation.statistics.means import relations_of, summarise_facts
from kn_attrib.evaluation.statistics.significance import Difference, paired_difference
from kn_attrib.store import read_run, write_run


class Result:
    """Base of the results of experiments: a frozen dataclass with at least ``rows`` and ``manifest``.

    Attributes
    ----------
    rows : one row per number: ``fact, relation``, the columns that say of what (`columns`), and ``value``.
    manifest : model, data hash, settings, methods with parameters and cost, versions, seed.
    frames : names of the fields that are tables and kept on disk.
    what : what messages call a saved one.
    """

    rows: pd.DataFrame
    manifest: dict[str, Any]
    frames: ClassVar[tuple[str, ...]] = ("rows",)
    what: ClassVar[str] = "result"

    @property
    def methods(self) -> list[str]:
        """Method labels in the order given."""
        return [m["method"] for m in self.manifest["methods"]]

    @property
    def columns(self) -> list[str]:
        """The columns of `rows` that say what a number is of."""
        return list(self.manifest["columns"])

    @property
    def seed(self) -> int:
        """Seed of all bootstraps."""
        return int(self.manifest["settings"]["seed"])

    def to_frame(self) -> pd.DataFrame:
        """The flat rows (a copy)."""
        frame: pd.DataFrame = self.rows.copy()
        return frame

    def _wide(self, rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """Facts (with their relation) × the values of some columns."""
        wide: pd.DataFrame = rows.pivot_table(index=["fact", "relation"], columns=columns, values="value", sort=False)
        return wide

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Mean over facts (within relations, then over relations), 95 % bootstrap interval and n of every cell."""
        summary: pd.DataFrame = summarise_facts(self._wide(self.rows, self.columns), self.seed).reset_index()
        return summary

    def summary_text(self) -> pd.DataFrame:
        """`summary` by method, with means and intervals as text."""
        found = self.summary
        bounds = zip(found["mean"], found["low"], found["high"], strict=True)
        text = found.assign(
            mean=[interval_text(*bound, percent=False) for bound in bounds], n=found.n.map("{:.0f}".format)
        )
        shown: pd.DataFrame = text.drop(columns=["low", "high"]).set_index("method")
        return shown

    def cell(self, **where: object) -> pd.DataFrame:
        """Rows of `summary` with the given column values.

        Raises
        ------
        ConfigError : an unknown column, or a value that no row has.
        """
        return self._chosen(self.summary, where)

    def against(self, reference: str, **where: object) -> dict[str, Difference]:
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
        base, relations = wide[reference].to_numpy(), relations_of(wide)
        others = [method for method in self.methods if method != reference]
        return {m: paired_difference(wide[m].to_numpy(), base, relations, self.seed) for m in others}

    def text_table(self, column: str, percent: bool = True, **where: object) -> pd.DataFrame:
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

    def _chosen(self, frame: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
        for column, value in where.items():
            if column not in self.columns:
                raise ConfigError(unknown("column", column, self.columns))
            known = frame[column].unique()
            if value not in known:
                raise ConfigError(unknown(column, str(value), map(str, known)))
            frame = frame[frame[column] == value]
        return frame

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `save` writes, by name."""
        return {name: getattr(self, name) for name in self.frames}

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the tables (Parquet) and ``manifest.json``; returns the folder.

        Raises
        ------
        StoreError : the folder holds another run (unless ``overwrite``), or cannot be written.
        """
        return write_run(check_folder(Path(folder), overwrite), self.tables(), self.manifest)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the folder does not hold such a result.
        """
        frames, manifest = read_run(Path(folder), cls.frames, cls.what)
        try:
            check_saved(cls.what, frames, manifest)
        except StoreError as error:
            raise damaged(cls.what, Path(folder), error) from error
        return cls(**frames, manifest=manifest)  # type: ignore[call-arg]  # its subclasses are dataclasses
