"""``kn-attrib report``: figures and report of a saved comparison, from its rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli.published import publish
from kn_attrib.evaluation import Comparison

NAME = "report"


def command(folder: Annotated[Path, typer.Argument(help="Folder that a comparison was written to.")]) -> None:
    """Draw the figures and write the report of a saved comparison again, and print its tables.

    Example: kn-attrib report runs/demo
    """
    publish(Comparison.load(folder), folder)
