"""``kn-attrib trace``: causal tracing, and whether it tells which neurons matter."""

from __future__ import annotations

import typer

from kn_attrib.cli.experiment import add_experiment
from kn_attrib.evaluation.tracing import trace
from kn_attrib.evaluation.tracing.settings import TracingSettings


def add(app: typer.Typer) -> None:
    """Add the command to the program."""
    add_experiment(
        app,
        trace.Tracing,
        TracingSettings,
        trace.METHODS,
        """Corrupt each fact's subject, restore one state at a time, and compare with where methods find neurons.

        Example: kn-attrib trace --kinds hidden,ffn --severed ffn --methods activation_norm,random --out runs/trace
        """,
    )
