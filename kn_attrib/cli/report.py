"""``kn-attrib report``: figures, report and leaderboard of saved comparisons, from their rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli.publish import publish
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
    comparisons = [Comparison.load(folder) for folder in folders]
    if markdown:
        typer.echo(leaderboard_page(comparisons), nl=False)
        return
    for comparison, folder in zip(comparisons, folders, strict=True):
        publish(comparison, folder)
