"""What a command says: lines and tables for people, or the values behind them as one JSON document."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

WIDTH = 210
"""Columns of text when nobody can say how wide the screen is."""
_DOCUMENT: ContextVar[dict[str, Any] | None] = ContextVar("document", default=None)
"""What is to be printed as JSON; None where people read along."""


def say(text: str, **values: object) -> None:
    """Print text; under ``--json`` keep the values instead, by name."""
    if _DOCUMENT.get() is None:
        typer.echo(text)
    give(**values)


def give(**values: object) -> None:
    """Values that only the JSON document holds."""
    document = _DOCUMENT.get()
    if document is not None:
        document.update(values)


def show(rows: Iterable[Iterable[object]], columns: Iterable[str], title: str = "", **values: object) -> None:
    """Print a table; under ``--json`` keep the values instead, by name."""
    give(**values)
    if _DOCUMENT.get() is not None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # Texts stand as they are: ":France:" is a part of a fact's name, not a flag.
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False, highlight=False, emoji=False)
    if title:
        # Not the table's own title, which is broken into lines of the table's width.
        console.print(title, style="italic", soft_wrap=True)
    console.print(table)


def show_frame(frame: pd.DataFrame, title: str = "", **values: object) -> None:
    """Print a data frame with its index; under ``--json`` keep the values instead, by name."""
    columns = [str(frame.index.name or ""), *(str(c).replace("_", " ") for c in frame.columns)]
    rows = [[name, *row] for name, row in zip(frame.index, frame.itertuples(index=False), strict=True)]
    show(rows, columns, title, **values)


@contextmanager
def one_document() -> Iterator[None]:
    """While active, nothing is printed; on leaving, what was given is, as one JSON document, if there was no error.

    What a plug-in prints goes to stderr.
    """
    document: dict[str, Any] = {}
    ended: typer.Exit | None = None
    with redirect_stdout(sys.stderr), _collected_in(document):
        try:
            yield
        except typer.Exit as end:  # with a status of its own, as `doctor` after its findings
            ended = end
    if document:
        typer.echo(json.dumps(plain(document), indent=2, allow_nan=False))
    if ended is not None:
        raise ended


@contextmanager
def part(name: str) -> Iterator[None]:
    """While active, values are those of one more object in the document's list of that name."""
    document = _DOCUMENT.get()
    if document is None:
        yield
        return
    with _collected_in({}) as inner:
        yield
    document.setdefault(name, []).append(inner)


@contextmanager
def _collected_in(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    token = _DOCUMENT.set(document)
    try:
        yield document
    finally:
        _DOCUMENT.reset(token)


def plain(value: Any) -> Any:
    """A value as JSON holds it: data frames as lists of rows, numbers that are not finite as null, paths as text.

    >>> plain(pd.DataFrame({"k=1": [0.5, float("nan")]}, index=pd.Index(["random", "search"], name="method")))
    [{'method': 'random', 'k=1': 0.5}, {'method': 'search', 'k=1': None}]
    """
    if isinstance(value, pd.DataFrame):
        named = value.reset_index() if any(value.index.names) else value
        return plain(named.to_dict("records"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
