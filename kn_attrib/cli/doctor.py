"""``kn-attrib doctor``: whether this installation works, and what it has to work with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

import torch
import typer
from packaging.requirements import Requirement

from kn_attrib.cli import screen
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.compute import free_memory
from kn_attrib.models.loading import ZOO_PREFIX, load_model
from kn_attrib.models.products import HAS_ONEDNN
from kn_attrib.models.shipped import zoo_names
from kn_attrib.scoring.registry import list_methods
from kn_attrib.scoring.score import score

NAME = "doctor"
PACKAGE = "kn_attrib"
FACT, METHOD, MODEL = "capital:France", "integrated_gradients(steps=8)", "bert-facts"
CLOSE = 1e-4
"""Largest share of the largest score that the two ways through a model may differ by."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, whether it is as it should be, and what it is."""

    what: str
    fine: bool
    text: str


def command() -> None:
    """Check the installation: versions, memory, devices, shipped models, and one fact scored in two ways.

    Exit status 1 if something is not as it should be. Example: kn-attrib doctor
    """
    found = []
    for finding in findings():
        found.append(finding)
        screen.say(f"{'ok ' if finding.fine else 'BAD'}  {finding.what + ':':<14}{finding.text}")
    failed = sum(not finding.fine for finding in found)
    screen.give(fine=not failed, findings=found)
    if failed:
        screen.say(f"\n{failed} of these {'is' if failed == 1 else 'are'} not as it should be.")
        raise typer.Exit(1)


def findings() -> Iterator[Finding]:
    """What there is to say, one after another."""
    yield Finding("Python", True, f"{platform.python_version()} on {platform.platform()}")
    yield _packages()
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    linears = "oneDNN and PyTorch's own" if HAS_ONEDNN else "PyTorch's own only"
    yield Finding("processor", True, f"{threads}; products of {linears}")
    yield Finding("memory", True, f"{free_memory(torch.device('cpu')) / 2**30:.1f} GiB free")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("GPU", True, ", ".join(gpus) or "none that PyTorch sees")
    yield Finding("methods", len(list_methods()) > 0, f"{len(list_methods())} registered")
    yield Finding("models", MODEL in zoo_names(), f"shipped: {', '.join(zoo_names()) or 'none'}")
    yield _one_fact()


def _packages() -> Finding:
    """Whether what is installed is what the package asks for."""
    wrong, found = [], []
    for line in requires(PACKAGE) or []:
        asked = Requirement(line)
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            number = version(asked.name)
        except PackageNotFoundError:
            wrong.append(f"{asked.name} is missing")
            continue
        found.append(f"{asked.name} {number}")
        if not asked.specifier.contains(number, prereleases=True):
            wrong.append(f"{asked.name} is {number}, expected {asked.specifier}")
    text = "; ".join(wrong) + ": pip install --upgrade kn_attrib" if wrong else ", ".join(found)
    return Finding("packages", not wrong, text)


def _one_fact() -> Finding:
    """One fact of a shipped model, scored on the fast path and by whole passes."""
    try:
        fact = load_facts("world")[FACT]
        fast, slow = (
            score(load_model(f"{ZOO_PREFIX}{MODEL}", engine=engine), fact, METHOD).values
            for engine in ("auto", "plain")
        )
    except Exception as error:  # whatever is wrong with an installation is what is asked for
        return Finding("one fact", False, f"{type(error).__name__}: {error}")
    apart = float((fast - slow).abs().max() / slow.abs().max())
    text = f"{FACT} by {METHOD}, fast and plain path {apart:.0e} apart (of the largest score)"
    return Finding("one fact", apart < CLOSE, text)
