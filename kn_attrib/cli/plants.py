"""``kn-attrib plants``: make the planted benchmark anew."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from kn_attrib.cli import options
from kn_attrib.evaluation.planted.build import build_suite
from kn_attrib.evaluation.planted.suite import MODELS

NAME = "plants"


def command(
    model: Annotated[list[str] | None, typer.Option(help="Model to plant in (may be repeated); default all.")] = None,
    seed: options.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the plants.")] = Path("runs/plants"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Models at a time; default all of them.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write facts into chosen neurons of the base models, verify each, and keep what passes.

    Example: kn-attrib plants --model zoo:gpt2-facts --seed 1 --out runs/plants
    """
    options.prepare(out, overwrite)
    names = model or list(MODELS)
    at_once = min(jobs or len(names), len(names))
    if at_once == 1:
        for name in names:
            typer.echo(_made(name, seed, out))
    else:
        threads = max(1, (os.cpu_count() or 1) // at_once)
        spawn = get_context("spawn")
        with ProcessPoolExecutor(at_once, spawn, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            try:
                for line in pool.map(_made, names, [seed] * len(names), [out] * len(names)):
                    typer.echo(line)
            except KeyboardInterrupt:
                # The pool would wait for the models that are under way, for many minutes.
                for process in active_children():
                    process.terminate()
                raise
    typer.echo(f"Plants: {out} (use them with kn-attrib benchmark --plants {out})")


def _made(name: str, seed: int, out: Path) -> str:
    """Make and save the plants of one model; returns what is to be said of it."""
    suite = build_suite(name, seed, progress=lambda line: typer.echo(line, err=True))
    suite.save(out)
    tried = suite.checks()
    return f"{name}: {int(tried.passed.sum())} of {len(tried)} facts passed, {suite.about['seconds']:.0f} s."
