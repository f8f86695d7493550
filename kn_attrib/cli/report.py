"""``kn-attrib report``: figures, report and leaderboard of saved comparisons, from their rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import screen
from kn_attrib.cli.publish import publish
from kn_attrib.errors import KnAttribError, StoreError
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.report.leaderboard import leaderboard_page

NAME = "report"


def command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders that comparisons were written to.")
    ],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of equal budgets as Markdown instead.")
    ] = False,
) -> None:
    """Draw the figures and write the report of saved comparisons again, and print their tables.

    Example: kn-attrib report runs/demo
    """
    comparisons = [_loaded(folder) for folder in folders]
    if markdown:
        with _readable(folders):
            typer.echo(leaderboard_page(comparisons), nl=False)
        return
    for comparison, folder in zip(comparisons, folders, strict=True):
        with _readable([folder]), screen.part("comparisons"):
            publish(comparison, folder)


def _loaded(folder: Path) -> Comparison:
    comparison = Comparison.load(folder)
    if comparison.rows.empty:
        raise StoreError(f"{folder} holds a comparison of which nothing is measured yet; go on with it, then report.")
    return comparison


@contextmanager
def _readable(folders: list[Path]) -> Iterator[None]:
    """Rows that are readable but do not belong together are answered, not shown as a fault of the program."""
    try:
        yield
    except KnAttribError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"the comparison in {', '.join(map(str, folders))} cannot be reported: its tables and its manifest do not "
            f"belong together ({error!r}); run kn-attrib compare again."
        ) from error
