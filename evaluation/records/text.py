"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd


class TitledTable(NamedTuple):
    """A table of text with what is said above it; without a table, only that."""

    title: str
    table: pd.DataFrame | None = None


def markdown(table: pd.DataFrame) -> str:
    """A table of text; the index comes first, as code unless it is in brackets.

    >>> print(markdown(pd.DataFrame({"recall_at_k": ["1"]}, index=["random"])))
    | method | recall at k |
    |---|---|
    | `random` | 1 |
    """

    def line(cells: Iterable[object]) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    head = [str(table.index.name or "method"), *(str(column).replace("_", " ") for column in table.columns)]
    names = [name if str(name).startswith("(") else f"`{name}`" for name in table.index]
    rows = [[name, *row] for name, row in zip(names, table.itertuples(index=False), strict=True)]
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def interval_text(mean: float, low: float, high: float, percent: bool) -> str:
    """A mean with its interval as text.

    >>> interval_text(-0.387, -0.45, -0.312, percent=True)
    '−38.7 % [−45.0, −31.2]'
    >>> interval_text(-1.234, -1.4, -1.05, percent=False)
    '−1.23 [−1.40, −1.05]'
    """
    if pd.isna(mean):
        return "–"
    scale, digits, unit = (100, 1, " %") if percent else (1, 2, "")
    numbers = [f"{scale * x:+.{digits}f}".replace("-", "−") for x in (mean, low, high)]
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]"
