"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

NONE = "–"
"""In the place of what there is not."""
FURTHER_DIGITS = 3
"""Most digits that a number gets beyond its own so as not to read as a mark that it is held against."""


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


def number_text(value: float, digits: int, scale: float = 1.0, signed: bool = False) -> str:
    """A number as it is set: with a proper minus; what rounds to nothing has no sign.

    >>> number_text(-0.387, 1, scale=100), number_text(-0.0004, 2), number_text(0.5, 1, signed=True)
    ('−38.7', '0.00', '+0.5')
    """
    text = f"{scale * value:{'+' if signed else ''}.{digits}f}"
    return (text if text.strip("+-0.") else text.lstrip("+-")).replace("-", "−")


def interval_text(mean: float, low: float, high: float, percent: bool, marks: Sequence[float] = ()) -> str:
    """A mean with its interval as text, signed; see `with_interval`.

    >>> interval_text(-0.387, -0.45, -0.312, percent=True)
    '−38.7 % [−45.0, −31.2]'
    >>> interval_text(-1.234, -1.4, -1.05, percent=False)
    '−1.23 [−1.40, −1.05]'
    """
    scale, digits, unit = (100, 1, " %") if percent else (1, 2, "")
    return with_interval(mean, low, high, digits, unit, scale, signed=True, marks=marks)


def with_interval(
    mean: float,
    low: float,
    high: float,
    digits: int,
    unit: str = "",
    scale: float = 1.0,
    signed: bool = False,
    marks: Sequence[float] = (),
) -> str:
    """A number with its interval; a dash where there is none, as of a single fact.

    >>> with_interval(0.784, 0.65, 0.893, 0, " %", scale=100)
    '78 % [65, 89]'
    >>> with_interval(0.774, float("nan"), float("nan"), 1, " %", scale=100)
    '77.4 % [–]'

    Parameters
    ----------
    marks : what the ends are held against; none is rounded to one that it is not.
    """
    if not np.isfinite(mean):
        return NONE
    if not np.isfinite([low, high]).all():
        return f"{number_text(mean, digits, scale, signed)}{unit} [{NONE}]"
    digits = _enough_digits((low, high), marks, digits, scale)
    numbers = [number_text(x, digits, scale, signed) for x in (mean, low, high)]
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]"


def _enough_digits(values: Sequence[float], marks: Sequence[float], digits: int, scale: float) -> int:
    """Digits with which no value reads as a mark that it is not; as given where a few more do not help."""
    for enough in range(digits, digits + FURTHER_DIGITS + 1):
        read = {number_text(mark, enough, scale): mark for mark in marks}
        if all(read.get(number_text(value, enough, scale), value) == value for value in values):
            return enough
    return digits
