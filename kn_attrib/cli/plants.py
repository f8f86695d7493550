"""``kn-attrib plants``: make the planted benchmark anew."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from kn_attrib.cli import options, screen
from kn_attrib.cli.modes import Modes, modes, telling
from kn_attrib.evaluation.planted.build import build_suite
from kn_attrib.evaluation.planted.suite import MODELS

NAME = "plants"
LOG = logging.getLogger(__name__)


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
            _say(_made(name, seed, out))
    else:
        threads = max(1, (os.cpu_count() or 1) // at_once)
        spawn = get_context("spawn")
        with ProcessPoolExecutor(at_once, spawn, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            try:
                for made in pool.map(_made_apart, names, *([each] * len(names) for each in (seed, out, modes()))):
                    _say(made)
            except KeyboardInterrupt:
                # The pool would wait for the models that are under way, for many minutes.
                for process in active_children():
                    process.terminate()
                raise
    screen.say(f"Plants: {out} (use them with kn-attrib benchmark --plants {out})", files={"folder": out})


def _made(name: str, seed: int, out: Path) -> dict[str, Any]:
    """Make and save the plants of one model; returns what is to be said of it."""
    suite = build_suite(name, seed, progress=LOG.info)
    suite.save(out)
    tried = suite.checks()
    return {
        "model": name,
        "passed": int(tried.passed.sum()),
        "tried": len(tried),
        "seconds": suite.about["seconds"],
    }


def _made_apart(name: str, seed: int, out: Path, asked: Modes) -> dict[str, Any]:
    """The same in a process of its own, which tells as much as this one."""
    with telling(asked):
        return _made(name, seed, out)


def _say(made: dict[str, Any]) -> None:
    with screen.part("models"):
        screen.say("{model}: {passed} of {tried} facts passed, {seconds:.0f} s.".format(**made), **made)
