"""The columns of all tables as a page of Markdown: ``python -m kn_attrib.evaluation.records.columns_page``."""

from __future__ import annotations

from kn_attrib.evaluation.records.tables import TABLES

INTRODUCTION = """# Columns of the tables

What is in the data frames that results hold and return, and in the Parquet files that they write. Texts are strings,
integers whole numbers, numbers in floating point (missing: NaN), truths true or false. `{…}` in a name stands for what
the table is asked for. Tables of text, such as `Comparison.table()`, show these numbers rounded, with their intervals,
under the names of groups, metrics or levels. What metrics, groups, control neurons and axes are, the pages on
[evaluation](evaluation.md), [protocols](protocols.md) and [planted facts](planted.md) say.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(f"## {table.title}\n\n{table.markdown()}\n" for table in TABLES.values())])


if __name__ == "__main__":
    print(page(), end="")
