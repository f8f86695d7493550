"""Whatever the files of a saved run hold, what reads them returns what it promises or says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import MODEL, answered, changed, encoded, files, fuzz, trees
from kn_attrib import Comparison, NeuronScores
from kn_attrib.errors import StoreError
from kn_attrib.evaluation.planted.plant import Plant, load_plants
from kn_attrib.evaluation.planted.result import PlantedResult
from kn_attrib.evaluation.planted.suite import Suite, load_suite
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.journal import Entry, Journal
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.report.grid import Grid


def headed(header: Any, rest: bytes) -> bytes:
    """A safetensors file with another header."""
    text = encoded(header)
    return len(text).to_bytes(8, "little") + text + rest


def parts_of(content: bytes) -> tuple[Any, bytes]:
    size = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:size]), content[size:]


def test_scores(saved: Path, tmp_path: Path) -> None:
    valid = (saved / "scores.safetensors").read_bytes()
    header, rest = parts_of(valid)
    record = json.loads(header["__metadata__"]["kn_attrib"])
    path = tmp_path / "scores.safetensors"

    def with_record(tree: Any) -> bytes:
        return headed(header | {"__metadata__": {"kn_attrib": json.dumps(tree)}}, rest)

    headers = changed(header).map(lambda tree: headed(tree, rest))

    @fuzz
    @given(files(valid) | headers | (changed(record) | trees).map(with_record))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = answered("NeuronScores", lambda: NeuronScores.load(path), StoreError)
        if found is not None:
            assert len(found.shape) == 3
            assert len(found) == len(found.facts) == len(found.texts) == len(found.relations)
            assert all(isinstance(text, str) for text in (found.method, *found.facts, *found.texts, *found.relations))
            assert isinstance(repr(found), str)

    read()


def mutations_of(folder: Path) -> st.SearchStrategy[tuple[str, bytes]]:
    """One file of a folder, and what it holds instead."""

    def of(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        content = (folder / name).read_bytes()
        held = [json.loads(content)] if name.endswith(".json") else []
        return files(content, *held).map(lambda instead: (name, instead))

    return st.one_of(
        *(of(p.name) for p in sorted(folder.iterdir()) if p.suffix in (".json", ".parquet", ".safetensors"))
    )


RESULTS: list[tuple[str, type[Result]]] = [
    ("comparison", Comparison), ("benchmark", PlantedResult), ("protocol", ProtocolResult)
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), RESULTS, ids=[name for name, _ in RESULTS])
def test_saved_results(saved: Path, tmp_path: Path, name: str, kind: type[Result]) -> None:
    folder = tmp_path / name
    shutil.copytree(saved / name, folder)

    @fuzz
    @given(mutations_of(saved / name))
    def read(change: tuple[str, bytes]) -> None:
        file, content = change
        (folder / file).write_bytes(content)
        found = answered(f"{kind.__name__} {file}", lambda: kind.load(folder), StoreError)
        shutil.copyfile(saved / name / file, folder / file)
        if found is not None:
            assert all(isinstance(getattr(found, table), pd.DataFrame) for table in kind.frames)
            assert all(isinstance(method, str) for method in found.methods)
            assert isinstance(found.seed, int)
            assert all(isinstance(column, str) for column in found.rows.columns[:1])

    read()


def test_saved_grids(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    shutil.copytree(saved / "grid", folder)

    @fuzz
    @given(mutations_of(saved / "grid"))
    def read(change: tuple[str, bytes]) -> None:
        file, content = change
        (folder / file).write_bytes(content)
        found = answered(f"Grid {file}", lambda: Grid.load(folder), StoreError)
        shutil.copyfile(saved / "grid" / file, folder / file)
        if found is not None:
            assert isinstance(found.rows, pd.DataFrame)
            assert isinstance(found.manifest, dict)
            assert isinstance(found.factors, dict)

    read()


def test_plants(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plants"
    shutil.copytree(saved / "plants", folder)

    @fuzz
    @given(mutations_of(saved / "plants"))
    def read(change: tuple[str, bytes]) -> None:
        file, content = change
        (folder / file).write_bytes(content)
        found = answered("plants", lambda: load_plants(folder / "gpt2-facts"), StoreError)
        suite = answered("suite", lambda: load_suite(MODEL, folder), StoreError)
        shutil.copyfile(saved / "plants" / file, folder / file)
        assert suite is None or isinstance(suite, Suite)
        for plant in found[0].values() if found else ():
            assert isinstance(plant, Plant)
            assert len(plant.keys) == plant.keys.shape[0] == len(plant.neurons)

    read()


def test_journals(saved: Path, tmp_path: Path) -> None:
    folder, name = tmp_path / "journal", "unfinished"
    shutil.copytree(saved / "journal", folder)

    def opened() -> Entry:
        journal = Journal(folder)
        journal.open({"seed": 0})
        return journal.get("unit", Entry)

    @fuzz
    @given(mutations_of(saved / "journal" / name))
    def read(change: tuple[str, bytes]) -> None:
        file, content = change
        (folder / name / file).write_bytes(content)
        found = answered("journal", opened, StoreError)
        shutil.copyfile(saved / "journal" / name / file, folder / name / file)
        assert found is None or (isinstance(found.frame, pd.DataFrame) and isinstance(found.record, dict))

    read()
    Journal(folder).close()
