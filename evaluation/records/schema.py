"""What a saved run must hold to be read: the columns of its tables, and what its manifest says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype, is_string_dtype

from kn_attrib.errors import StoreError
from kn_attrib.evaluation.vocabulary import AGREEMENT, CELL

TEXTS = {"rows": ("fact", "relation", "method")}
NUMBERS = {"rows": ("value",)}
"""Columns of every run's tables, by table."""
OWN_TEXTS: dict[str, dict[str, Sequence[str]]] = {
    "comparison": {
        "rows": CELL,
        "facts": ("fact", "relation", "status"),
        "neurons": ("method", "selection", "fact", "relation"),
        "agreement": AGREEMENT[:-1],
    },
    "activation by kind of text": {
        "rows": ("design", "group", "neurons", "metric"),
        "texts": ("fact", "relation", "design", "group", "example"),
    },
    "benchmark": {"rows": ("model", "plant", "axis", "metric")},
    "trace": {
        "rows": ("kind", "role", "metric"),
        "cells": ("fact", "relation", "kind", "text"),
        "prompts": ("fact", "text", "status"),
        "facts": ("fact", "relation", "status"),
    },
}
OWN_NUMBERS: dict[str, dict[str, Sequence[str]]] = {
    "comparison": {
        "rows": ("n_neurons",),
        "facts": ("prompts", "held_out"),
        "neurons": ("layer", "neuron"),
        "agreement": AGREEMENT[-1:],
    },
    "activation by kind of text": {"texts": ("n", "words")},
    "trace": {
        "rows": ("layer",),
        "cells": ("prompt", "token", "layer", "low", "high", "p", "effect", "deviation"),
        "prompts": ("prompt", "p_clean", "p_corrupted", "subject_start", "subject_end"),
    },
}
"""Further columns by what is saved."""
MANIFEST: dict[str, dict[str, Any]] = {
    "comparison": {"complete": bool, "model": {"name": str}, "facts": {}, "seconds": (int, float)},
    "activation by kind of text": {"model": {"name": str}, "without_texts": [str]},
    "benchmark": {"models": [{"name": str}]},
    "trace": {"model": {"name": str, "layers": int}, "window": int, "prompts": {}, "not_traced": [str]},
}
"""Further entries of the manifest by what is saved: a type, an object with entries, or a list of such."""
EVERY: dict[str, Any] = {"methods": [{"method": str}], "settings": {"seed": int}}


def check_saved(what: str, frames: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any]) -> None:
    """Check the tables and the manifest of a saved run.

    Raises
    ------
    StoreError : something is missing or of another kind.
    """
    _check_entry("manifest", manifest, EVERY | MANIFEST.get(what, {}))
    columns = manifest.get("columns", [])
    _check_entry("columns", columns, [str])
    for table, frame in frames.items():
        texts = {*TEXTS.get(table, ()), *OWN_TEXTS.get(what, {}).get(table, ())}
        numbers = {*NUMBERS.get(table, ()), *OWN_NUMBERS.get(what, {}).get(table, ())}
        missing = sorted((texts | numbers | ({*columns} if table == "rows" else set())) - {*frame.columns})
        if missing:
            raise StoreError(f"{table}.parquet has no column {missing[0]!r}.")
        for column in sorted(texts | numbers):
            _check_column(table, frame[column], column in numbers)


def check_grid(rows: pd.DataFrame, manifest: Mapping[str, Any]) -> None:
    """Check the rows and the manifest of a saved grid.

    Raises
    ------
    StoreError : something is missing or of another kind.
    """
    _check_entry("grid", manifest, {"factors": {}, "methods": [str], "settings": {}, "combinations": [{}]})
    for factor, levels in manifest["factors"].items():
        _check_entry(factor, levels, list)
    columns = {**dict.fromkeys([*CELL, "fact", "relation", *manifest["factors"]], False), "value": True}
    for column, is_number in columns.items():
        if column not in rows:
            raise StoreError(f"grid.parquet has no column {column!r}.")
        _check_column("grid", rows[column], is_number)


def _check_column(table: str, column: pd.Series[Any], is_number: bool) -> None:
    if column.empty:
        return
    if is_number:
        right, expected = is_numeric_dtype(column) and not is_bool_dtype(column), "numbers"
    else:
        right, expected = is_string_dtype(column) and not column.isna().any(), "texts"
    if not right:
        raise StoreError(f"{table}.parquet: column {column.name!r} holds {column.dtype}; expected {expected}.")


def _check_entry(name: str, found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        if not isinstance(found, Mapping):
            raise StoreError(f"manifest.json: {name!r} is {found!r:.80}; expected an object.")
        for key, wanted in expected.items():
            if key not in found:
                raise StoreError(f"manifest.json: {name!r} says nothing of {key!r}.")
            _check_entry(key, found[key], wanted)
    elif isinstance(expected, list):
        if not isinstance(found, list):
            raise StoreError(f"manifest.json: {name!r} is {found!r:.80}; expected a list.")
        for each in found:
            _check_entry(name, each, expected[0])
    elif not isinstance(found, expected) or (isinstance(found, bool) and expected is not bool):
        raise StoreError(f"manifest.json: {name!r} is {found!r:.80}; expected another kind of value.")


def damaged(what: str, folder: Path, error: Exception) -> StoreError:
    """The error for a folder that holds another thing, or a damaged one."""
    return StoreError(
        f"{folder} holds no {what} that can be read: {error} Expected what its save wrote; run the command again."
    )
