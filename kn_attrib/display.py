"""Objects as small HTML tables, for notebooks: everything escaped, no colours, so that any theme can be read."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

SHOWN = 5
"""Most entries of a list that are shown."""
LARGE_SHOWN = 20
"""Most rows of a table."""

_TABLE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
    """\
{% macro aligned(column) %}{% if column in left %} style="text-align: left"{% endif %}{% endmacro %}
<table>
<caption style="text-align: left; white-space: nowrap">{{ caption }}</caption>
{% if header and rows %}
<thead><tr>{% for name in header %}<th scope="col"{{ aligned(loop.index0) }}>{{ name }}</th>{% endfor %}</tr></thead>
{% endif %}
<tbody>
{% for row in rows %}
<tr><th scope="row"{{ aligned(0) }}>{{ row[0] }}</th>{% for cell in row[1:] %}
<td{{ aligned(loop.index) }}>{% for line in cell %}{{ line }}{% if not loop.last %}<br>{% endif %}{% endfor %}</td>\
{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% for note in notes %}
<p>{{ note }}</p>
{% endfor %}
"""
)


def html_table(
    caption: str,
    rows: Sequence[Sequence[object]],
    header: Sequence[str] = (),
    notes: Sequence[str] = (),
    left: Sequence[int] | None = None,
) -> str:
    """One table.

    Parameters
    ----------
    caption : what it is of.
    rows : each its name, then its cells; a cell that is a tuple or list has a line for each entry.
    header : names of the columns, the rows' names among them.
    notes : sentences under the table.
    left : columns that are aligned to the left, from 0; default all.
    """
    lines = [[row[0], *(cell if isinstance(cell, tuple | list) else (cell,) for cell in row[1:])] for row in rows]
    columns = range(max(map(len, lines), default=0)) if left is None else left
    return _TABLE.render(caption=caption, rows=lines, header=header, notes=notes, left=columns)


def first_of(texts: Sequence[str], shown: int = SHOWN) -> tuple[str, ...]:
    """The first few, and how many more there are."""
    more = len(texts) - shown
    return (*texts[:shown], *([f"… and {more} more"] if more > 0 else []))


def counted(n: int, what: str) -> str:
    """``"1 fact"``, ``"2 facts"``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def number(value: float) -> str:
    """Three digits that count, with a minus sign that reads as one."""
    return f"{value:.3g}".replace("-", "−")
