"""Tables on the screen."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from rich.console import Console
from rich.table import Table

WIDTH = 210
"""Columns of text when nobody can say how wide the screen is."""


def show(rows: Iterable[Iterable[object]], columns: Iterable[str], title: str = "") -> None:
    """Print a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(width=None if Console().is_terminal else WIDTH, markup=False, highlight=False)
    if title:
        # Not the table's own title, which is broken into lines of the table's width.
        console.print(title, style="italic", soft_wrap=True)
    console.print(table)


def show_frame(frame: pd.DataFrame, title: str = "") -> None:
    """Print a data frame with its index."""
    columns = [str(frame.index.name or ""), *(str(c).replace("_", " ") for c in frame.columns)]
    rows = [[name, *row] for name, row in zip(frame.index, frame.itertuples(index=False), strict=True)]
    show(rows, columns, title)
