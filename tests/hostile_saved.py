"""Small saved things of every kind, to be damaged: fixtures of the tests in ``hostile/``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from kn_attrib import FactSet, NeuronModel, NeuronScores, NeuronSet, compare
from kn_attrib.evaluation.planted.plant import Check, Plant, Target
from kn_attrib.evaluation.planted.result import METRICS, PlantedResult
from kn_attrib.evaluation.planted.suite import Item, Suite
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.journal import Entry, Journal
from kn_attrib.evaluation.report.grid import Grid

MODEL = "zoo:gpt2-facts"
ROW = {"fact": "a", "relation": "r", "method": "random", "metric": "rank", "value": 0.5}
ABOUT = {"methods": [{"method": "random"}], "settings": {"seed": 0}}


@pytest.fixture(scope="session")
def saved(
    tmp_path_factory: pytest.TempPathFactory, session_load_tiny: Callable[..., NeuronModel], session_facts: FactSet
) -> Path:
    """A folder with one saved thing of each kind."""
    folder = tmp_path_factory.mktemp("saved")
    session_facts.save(folder / "facts.jsonl")
    NeuronSet([(0, 3), (2, 1)]).save(folder / "neurons.json")
    scores = NeuronScores(
        torch.rand(2, 3, 4), ("a", "b"), ("r", "r"), ("t [Y]", "u [Y]"), "random",
        gap=torch.rand(2, 3), tokens=(1, 2), token_values=torch.rand(3, 3, 4),
    )  # fmt: skip
    scores.save(folder / "scores.safetensors")
    settings = {"keep": ["unknown"], "budgets": (1,), "control_facts": 1, "limit": 2, "progress": False}
    found = compare(session_load_tiny("masked"), session_facts, ["random"], folder=folder / "comparison", **settings)  # type: ignore[arg-type]
    factors = {"factors": {"threshold": [0.2, 0.5]}, "combinations": [], "identity": {}}
    Grid(found.rows.assign(threshold="0.2"), ABOUT | factors | {"methods": ["random"]}).save(folder / "grid")
    rows = pd.DataFrame([ROW | {"model": MODEL, "plant": "p", "axis": "k=1", "metric": name} for name in METRICS])
    PlantedResult(rows, ABOUT | {"models": [{"name": MODEL}]}).save(folder / "benchmark")
    frames = [pd.DataFrame([ROW]), pd.DataFrame({"fact": ["a"]}), pd.DataFrame({"fact": ["a"]})]
    rows, listed, neurons = frames
    ProtocolResult(rows, listed, neurons, ABOUT | {"protocol": "inj", "columns": ["method", "metric"]}).save(
        folder / "protocol"
    )
    suite_of(session_facts).save(folder / "plants")
    journal = Journal(folder / "journal")
    journal.open({"seed": 0})
    journal.get("unit", lambda: Entry({"t": torch.arange(3.0)}, pd.DataFrame({"a": [1, 2]}), {"n": 1}))
    return folder


def suite_of(facts: FactSet) -> Suite:
    """One plant of one fact, as `kn-attrib plants` would save it."""
    neurons = NeuronSet([(0, 1), (1, 2)])
    check = Check(0.01, 0.9, 0.8, 0.1, 0.1, 0.5, 0.6, 0.0, 0.0, 0.0, 1.0, 0.99)
    target = Target(facts[0], neurons, check=check)
    plant = Plant((target,), neurons, torch.rand(2, 1, 5), torch.rand(2, 1), torch.rand(2, 5))
    about = {"seed": 0, "tried": [], "seconds": 1.0}
    return Suite(MODEL, "0" * 64, (Item("k=1-0", "k=1", "test", plant),), about)


@pytest.fixture(scope="session")
def session_facts() -> FactSet:
    """Facts that outlive a test."""
    from conftest import make_facts

    return make_facts()


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved things, to be damaged."""
    shutil.copytree(saved, tmp_path / "saved")
    return tmp_path / "saved"
