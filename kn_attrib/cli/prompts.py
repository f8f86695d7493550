"""``kn-attrib prompts``: on which kinds of text a fact's neurons fire."""

from __future__ import annotations

import typer

from kn_attrib.cli.experiment import add_experiment
from kn_attrib.evaluation.firing import firing


def add(app: typer.Typer) -> None:
    """Add the command to the program."""
    add_experiment(
        app,
        firing.Firing,
        firing.PromptTypesSettings,
        firing.METHODS,
        """Compare a fact's neurons on kinds of text: with its subject and answer, with either, with neither.

        Example: kn-attrib prompts --model zoo:gpt2-facts --limit 10 --out runs/prompts
        """,
    )
