"""``kn-attrib read``: what neurons fire on and what they write."""

from __future__ import annotations

import typer

from kn_attrib.cli.experiment import add_experiment
from kn_attrib.evaluation.reading import reading


def add(app: typer.Typer) -> None:
    """Add the command to the program."""
    add_experiment(
        app,
        reading.Reading,
        reading.ReadingSettings,
        reading.METHODS,
        """Read neurons as memories: the texts that activate them most, and the words that they write.

        Example: kn-attrib read --model zoo:gpt2-facts --limit 3 --neurons L3:17 --out runs/read
        """,
    )
