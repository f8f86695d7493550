"""``kn-attrib plants``: make the planted benchmark anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import options
from kn_attrib.evaluation.planted_build import build_suite
from kn_attrib.evaluation.planted_suite import MODELS

NAME = "plants"


def command(
    model: Annotated[list[str] | None, typer.Option(help="Model to plant in (may be repeated); default all.")] = None,
    seed: options.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the plants.")] = Path("runs/plants"),
    overwrite: options.Overwrite = False,
) -> None:
    """Write facts into chosen neurons of the base models, verify each, and keep what passes.

    Example: kn-attrib plants --model zoo:gpt2-facts --seed 1 --out runs/plants
    """
    options.prepare(out, overwrite)
    for name in model or MODELS:
        suite = build_suite(name, seed, progress=lambda line: typer.echo(line, err=True))
        suite.save(out)
        tried = suite.checks()
        typer.echo(f"{name}: {int(tried.passed.sum())} of {len(tried)} facts passed, {suite.about['seconds']:.0f} s.")
    typer.echo(f"Plants: {out} (use them with kn-attrib benchmark --plants {out})")
