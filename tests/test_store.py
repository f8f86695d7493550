"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from kn_attrib import FactSet, NeuronScores, NeuronSet
from kn_attrib.errors import StoreError
from kn_attrib.store import (
    RECORDED_PACKAGES,
    atomic_path,
    check_writable,
    read_json,
    versions,
    write_json,
    write_parquet,
    write_text,
)

Write = Callable[[Path], object]


@pytest.fixture(params=["facts", "neurons", "scores", "parquet", "json", "text"])
def write(request: pytest.FixtureRequest, facts: FactSet) -> Write:
    """Writes something of more than 4 kB to a path."""
    scores = NeuronScores(torch.rand(1, 3, 2000), ("a",), ("r",), ("t",), "random")
    frame = pd.DataFrame({"a": torch.rand(2000).tolist()})
    writers: dict[str, Write] = {
        "facts": facts.save,
        "neurons": NeuronSet((0, i) for i in range(2000)).save,
        "scores": scores.save,
        "parquet": lambda path: write_parquet(path, frame),
        "json": lambda path: write_json(path, list(range(2000))),
        "text": lambda path: write_text(path, "word " * 2000),
    }
    return writers[request.param]


@contextmanager
def full_disk(size: int = 512) -> Iterator[None]:
    """No file may grow over ``size`` bytes: writing fails in the middle, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_no_file(write: Write, tmp_path: Path) -> None:
    with full_disk(), pytest.raises(StoreError, match=r"cannot write .*new: .*[Ff]ile too large.*half-written; free"):
        write(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_untouched(write: Write, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    with full_disk(), pytest.raises(StoreError):
        write(tmp_path / "old")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old", "old")]


def test_no_space_left_is_said_in_words(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        StoreError, match=r"cannot write .*new: No space left on device\. Nothing was left half-written"
    ):
        write(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file/new: (File exists|Not a directory)"):
        write(tmp_path / "file" / "new")


def test_a_good_write_leaves_exactly_one_file(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "deeper" / "new")
    assert [p.name for p in (tmp_path / "deeper").iterdir()] == ["new"]


def test_any_exception_removes_the_temporary_file(tmp_path: Path) -> None:
    for kind in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(kind), atomic_path(tmp_path / "new"):
            raise kind
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_tried_before_a_long_run(tmp_path: Path) -> None:
    check_writable(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot write to .*run: (File exists|Not a directory); choose another --out folder"
    ):
        check_writable(tmp_path / "file" / "run")


def test_json_round_trip_and_bad_json(tmp_path: Path) -> None:
    data: dict[str, Any] = {"é": [1, 2.5, None]}
    write_json(tmp_path / "data.json", data)
    assert read_json(tmp_path / "data.json") == data
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(StoreError, match=r"cannot read .*data\.json: Expecting property name"):
        read_json(tmp_path / "data.json")
    with pytest.raises(StoreError, match=r"cannot read .*nowhere\.json: .*No such file"):
        read_json(tmp_path / "nowhere.json")


def test_parquet_round_trip(tmp_path: Path) -> None:
    frame = pd.DataFrame({"fact": ["a", "b"], "value": [0.5, float("nan")]})
    write_parquet(tmp_path / "rows.parquet", frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "rows.parquet"), frame)


def test_versions_name_every_recorded_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(versions()) == {"python", *RECORDED_PACKAGES}
    # PyTorch names its build behind a plus, which the wheels of PyPI leave out of their metadata.
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    monkeypatch.setattr("kn_attrib.store.RECORDED_PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] == "not installed"
