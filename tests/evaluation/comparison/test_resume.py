"""Finished work is kept: a killed comparison goes on and gives the same rows."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from kn_attrib import Comparison, FactSet, NeuronModel, compare
from kn_attrib.errors import FactError, StoreError
from kn_attrib.evaluation import Factor, compare_grid
from kn_attrib.evaluation.comparison import run
from kn_attrib.evaluation.records.journal import Entry, Journal

METHODS = ["integrated_gradients", "ablation", "random"]


def test_a_unit_is_done_once(tmp_path: Path) -> None:
    for journal in (Journal(), Journal(tmp_path)):
        asked: list[int] = []

        def work(asked: list[int] = asked) -> Entry:
            asked.append(1)
            return Entry({"t": torch.arange(3.0)}, pd.DataFrame({"a": [1, 2]}), {"n": 1})

        for _ in range(2):
            entry = journal.get("unit", work)
            assert entry.tensors["t"].tolist() == [0, 1, 2]
            assert entry.frame.a.tolist() == [1, 2]
            assert entry.record == {"n": 1}
        assert asked == [1]
    assert Journal(tmp_path).done("unit")
    Journal(tmp_path).close()
    assert not Journal(tmp_path).done("unit")


def test_a_half_written_unit_is_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.get("unit", lambda: Entry(frame=pd.DataFrame({"a": [1]})))
    (tmp_path / "unfinished" / "unit.json").unlink()  # what is written last
    again = Journal(tmp_path).get("unit", lambda: Entry(frame=pd.DataFrame({"a": [2]})))
    assert again.frame.a.tolist() == [2]


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    assert not Journal(tmp_path).open({"seed": 0, "methods": ["a"]})
    assert Journal(tmp_path).open({"seed": 0, "methods": ["a"]})
    with pytest.raises(StoreError, match="unfinished run with other methods; ask for the same"):
        Journal(tmp_path).open({"seed": 0, "methods": ["b"]})


def test_a_stopped_run_goes_on(
    session_load_tiny: Callable[..., NeuronModel], facts: FactSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = session_load_tiny("causal", "float32")
    monkeypatch.setattr(run, "MEASURED_AT_ONCE", 2)
    settings = {"keep": ("unknown",), "budgets": (2,), "interventions": ("suppress", "mean"), "progress": False}
    whole = compare(model, facts, METHODS, **settings)  # type: ignore[arg-type]
    finished: list[str] = []
    get = Journal.get

    class StoppedError(Exception):
        pass

    for stop_after in (2, 4):

        def limited(self: Journal, name: str, work: Callable[[], Entry], most: int = stop_after) -> Entry:
            if len(finished) >= most:
                raise StoppedError
            entry = get(self, name, work)
            finished.append(name)
            return entry

        with monkeypatch.context() as patched:
            patched.setattr(Journal, "get", limited)
            with pytest.raises(StoppedError):
                compare(model, facts, METHODS, folder=tmp_path, **settings)  # type: ignore[arg-type]
        finished.clear()
    resumed = compare(model, facts, METHODS, folder=tmp_path, **settings)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(resumed.rows, whole.rows, check_exact=True)
    pd.testing.assert_frame_equal(Comparison.load(tmp_path).rows, whole.rows, check_exact=True)
    assert not (tmp_path / "unfinished").exists()
    with pytest.raises(StoreError, match=f"this run is finished: its results are in {tmp_path}; --overwrite starts it"):
        compare(model, facts, METHODS, folder=tmp_path, **settings)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="holds another run"):
        compare(model, facts, METHODS[:1], folder=tmp_path, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", [False, True], ids=["one", "grid"])
def test_a_run_that_fails_before_anything_is_finished_leaves_nothing_that_blocks_another(
    session_load_tiny: Callable[..., NeuronModel], facts: FactSet, tmp_path: Path, grid: bool
) -> None:
    model = session_load_tiny("causal", "float32")
    factors = [Factor("threshold", (0.1, 0.5))]
    settings: dict[str, Any] = {"folder": tmp_path, "progress": False, "budgets": (1,), "dropout": ()}

    def call(**further: Any) -> object:
        if grid:
            return compare_grid(model, facts, ["random"], factors, **settings, **further)
        return compare(model, facts, ["random"], **settings, **further)

    with pytest.raises(FactError, match="4 unknown"):
        call(known_share=1.01)
    assert list(tmp_path.iterdir()) == []
    call(keep=("unknown",))
    assert not (tmp_path / "unfinished").exists()


def test_killed_at_three_moments(tmp_path: Path) -> None:
    """The real thing: SIGKILL at random moments, the same command again, and identical rows."""
    command = [sys.executable, "-m", "kn_attrib", "compare", "--model", "zoo:gpt2-facts", "--limit", "40",
               "--max-prompts", "2", "--budgets", "5", "--methods", "integrated_gradients,ablation,random",
               "--relations", "capital,currency,continent,sport"]  # fmt: skip
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    dice, out, kills = random.Random(time.time_ns()), tmp_path / "killed", 0
    while kills < 3:
        process = subprocess.Popen([*command, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Long enough to have begun: the run's identity is written before the first score.
        while process.poll() is None and not Journal(out).started:
            time.sleep(0.05)
        try:
            process.wait(timeout=dice.uniform(0.1, 4.0))
            break  # it was quicker than the kill
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    if not (out / "manifest.json").exists():
        subprocess.run([*command, "--out", out], check=True, capture_output=True)
    whole, killed = Comparison.load(tmp_path / "whole"), Comparison.load(out)
    assert kills > 0
    assert killed.complete
    pd.testing.assert_frame_equal(killed.rows, whole.rows, check_exact=True)
    pd.testing.assert_frame_equal(killed.neurons, whole.neurons, check_exact=True)
    assert not killed.rows.drop(columns="value").duplicated().any()
