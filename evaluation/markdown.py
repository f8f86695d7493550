"""Tables of text as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd


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
