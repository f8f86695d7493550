"""What is said of a column, and of a table as a whole."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

Kind = Literal["text", "integer", "number", "truth"]
"""Texts, whole numbers, floating-point numbers, true or false."""


class Column(NamedTuple):
    """One column of a table.

    Parameters
    ----------
    name : words in braces stand for any text: ``"k={k}"`` for ``k=1``, ``k=5`` and so on.
    kind : of its values.
    values : unit and range, or which texts there are.
    meaning : in words.
    optional : not every table has it.
    """

    name: str
    kind: Kind
    values: str
    meaning: str
    optional: bool = False


class Table(NamedTuple):
    """A table that the package returns or writes."""

    title: str
    columns: tuple[Column, ...]

    def without(self, names: Collection[str]) -> Table:
        """The table that is left without some columns."""
        return self._replace(columns=tuple(each for each in self.columns if each.name not in names))

    def markdown(self) -> str:
        """Its columns as a table of Markdown."""
        lines = [
            f"| `{each.name}` | {each.kind} | {each.values} | {each.meaning}{' (where measured)' * each.optional} |"
            for each in self.columns
        ]
        return "\n".join(["| column | type | unit, range or values | meaning |", "|---|---|---|---|", *lines])


def interval(
    low: str = "low", high: str = "high", values: str = "as the mean", optional: bool = False
) -> tuple[Column, Column]:
    """Ends of a 95 % bootstrap interval."""
    return (
        Column(low, "number", values, "lower end of the 95 % bootstrap interval; of one fact there is none", optional),
        Column(high, "number", values, "upper end of the 95 % bootstrap interval; of one fact there is none", optional),
    )
