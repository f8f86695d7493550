"""Two writers at once, a run that is ended from outside, and a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command_line import output
from kn_attrib import Comparison, FactSet, NeuronModel, NeuronSet, compare
from kn_attrib.errors import StoreError
from kn_attrib.evaluation.records.folder import check_folder
from kn_attrib.evaluation.records.journal import Entry, Journal
from kn_attrib.evaluation.records.lock import LOCK

HOLDER = """
import fcntl, os, sys
os.makedirs(sys.argv[1])
handle = os.open(os.path.join(sys.argv[1], "writing"), os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
"""What `take` does, without the seconds that the package takes to be imported."""
SLOW = """
import sys, time
from kn_attrib.cli import main
from kn_attrib.evaluation.records.journal import Journal

get = Journal.get
def slow(self, name, work):
    found = get(self, name, work)
    print("finished", name, flush=True)
    time.sleep(60)
    return found
Journal.get = slow
main()
"""
BUSY = "another process is writing to .*; wait until it has finished, or choose another --out folder"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder that another process writes to."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run / "unfinished")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield run
    process.communicate()


def test_a_second_writer_is_refused_and_the_first_ones_work_is_left_alone(held: Path) -> None:
    (held / "unfinished" / "unit.json").write_text("{}")
    with pytest.raises(StoreError, match=BUSY):
        Journal(held).open({"seed": 0})
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=BUSY):
            check_folder(held, overwrite)
    assert {path.name for path in (held / "unfinished").iterdir()} == {LOCK, "unit.json"}


def test_a_writer_that_has_gone_holds_nothing(tmp_path: Path) -> None:
    place = tmp_path / "run" / "unfinished"
    subprocess.run([sys.executable, "-c", HOLDER, str(place)], stdin=subprocess.DEVNULL, check=True)
    assert (place / LOCK).exists()
    assert check_folder(tmp_path / "run", overwrite=False) == tmp_path / "run"
    journal = Journal(tmp_path / "run")
    assert not journal.open({"seed": 0})
    assert Journal(tmp_path / "run").open({"seed": 0})
    journal.close()
    assert not place.exists()


def test_sigterm_leaves_a_run_that_goes_on(saved_bert: Path, facts_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["compare", "--model", saved_bert, "--facts", facts_file, "--keep", "unknown", "--methods", "random",
                 "--control-facts", "1", "--budgets", "1", "--out", run]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "KN_ATTRIB_PRODUCTS": os.environ["KN_ATTRIB_PRODUCTS"]},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "finished scores-0-0-0\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "the same command goes on from there" in said
    assert time.monotonic() - started < 50
    assert [p for p in run.rglob(".*") if p.is_file()] == []
    assert not Comparison.load(run).complete
    output(*arguments)
    assert Comparison.load(run).complete
    assert not (run / "unfinished").exists()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when a file is to get its name."""

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)


FULL = r"cannot write .*{}: No space left on device\. Nothing was left half-written; free space or choose another"


@pytest.mark.usefixtures("full")
def test_a_full_disk_ends_a_unit_of_work(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=FULL.format(r"run\.json")):
        Journal(tmp_path).open({"seed": 0})
    with pytest.raises(StoreError, match=FULL.format(r"unit\.json")):
        Journal(tmp_path).get("unit", lambda: Entry(record={"n": 1}))
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == [LOCK]
    Journal(tmp_path).close()


def test_a_full_disk_ends_a_comparison_and_leaves_the_old_one(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, saved: Path, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = damaged / "comparison"
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    comparison = Comparison.load(place)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_parquet", no_space)
    with pytest.raises(StoreError, match=FULL.format(r"rows\.parquet")):
        comparison.save(place, overwrite=True)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert Comparison.load(place).methods == ["random"]


@pytest.mark.usefixtures("full")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "neurons.json"
    path.write_text('{"neurons": [[0, 1]]}')
    with pytest.raises(StoreError, match=FULL.format(r"neurons\.json")):
        NeuronSet([(5, 5)]).save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["neurons.json"]
    assert list(NeuronSet.load(path)) == [(0, 1)]


def test_a_run_that_cannot_write_any_more_can_go_on(
    load_tiny: Callable[..., NeuronModel], facts: FactSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny("masked")

    def run() -> Comparison:
        return compare(model, facts, ["random"], keep=["unknown"], budgets=(1,), control_facts=1, limit=2,
                       folder=tmp_path / "run", progress=False)  # fmt: skip

    original = Path.replace

    def no_space(path: Path, target: Path) -> Path:
        if target.name.startswith("rows-0"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", no_space)
        with pytest.raises(StoreError, match=FULL.format(r"rows-0\.parquet")):
            run()
    assert [p for p in (tmp_path / "run").rglob(".*") if p.is_file()] == []
    assert run().complete
