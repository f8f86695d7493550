"""Every column of every table is documented, and what is documented is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.api import types

from kn_attrib import FactSet, NeuronModel, score
from kn_attrib.evaluation import logit_lens, parameter_randomisation
from kn_attrib.evaluation.planted.suite import load_suite
from kn_attrib.evaluation.records.columns import Column
from kn_attrib.evaluation.records.columns_page import page
from kn_attrib.evaluation.records.schema import OWN_NUMBERS, OWN_TEXTS
from kn_attrib.evaluation.records.tables import TABLES
from kn_attrib.evaluation.report.curves import areas, curves
from kn_attrib.evaluation.report.leaderboard import leaderboard
from kn_attrib.evaluation.report.specificity import specificity
from small_results import (
    small_benchmark,
    small_comparison,
    small_deletion,
    small_grid,
    small_injection,
    small_prompt_types,
    small_reading,
    small_trace,
)
from synthetic_comparison import BASE, synthetic

KINDS: dict[str, Callable[[Any], bool]] = {
    "text": types.is_string_dtype,
    "integer": types.is_integer_dtype,
    "number": types.is_float_dtype,
    "truth": types.is_bool_dtype,
}
Frames = dict[str, pd.DataFrame]


def matches(documented: str, name: str) -> bool:
    """Words in braces stand for any word, but not for a whole name."""
    pattern = re.sub(r"(?<=.)\\\{\w+\\\}", r"\\S+", re.escape(documented))
    return name == documented or re.fullmatch(pattern, name) is not None


def problems(frame: pd.DataFrame, columns: tuple[Column, ...]) -> list[str]:
    """Columns that are not documented, not there, or of another kind than is said."""
    found = []
    matched = set()
    for name in map(str, frame.columns):
        own = [column for column in columns if matches(column.name, name)]
        said = own[0] if own else None
        if said is None:
            found.append(f"{name} is not documented")
        elif not KINDS[said.kind](frame[name].dropna().infer_objects()):
            found.append(f"{name} is {frame[name].dtype}, documented as {said.kind}")
        matched.add(said)
    return found + [f"{c.name} is not there" for c in columns if c not in matched and not c.optional]


@pytest.fixture(scope="module")
def frames(
    session_load_tiny: Callable[..., NeuronModel], module_facts: FactSet, tmp_path_factory: pytest.TempPathFactory
) -> Frames:
    model, facts = session_load_tiny("masked", "float32"), module_facts
    comparison = small_comparison(model, facts, curves=True)
    grid, planted = small_grid(model, facts), small_benchmark()
    inj, deletion = small_injection(model, facts), small_deletion(model, facts)
    traced = small_trace(model, facts)
    fired = small_prompt_types(model, facts, tmp_path_factory.mktemp("texts") / "texts.txt")
    board = replace(synthetic(BASE), manifest=synthetic(BASE).manifest)
    cost = {"seconds": 1.0, "forwards": 2, "backwards": 1, "prompts": 4}
    board.manifest["methods"] = [method | cost for method in board.manifest["methods"]]
    return {
        **{f"comparison.{name}": frame for name, frame in comparison.tables().items()},
        **{f"benchmark.{name}": frame for name, frame in planted.tables().items()},
        **{f"inj.{name}": frame for name, frame in inj.tables().items()},
        **{f"del.{name}": frame for name, frame in deletion.tables().items()},
        "comparison.summary": comparison.summary,
        "comparison.leaderboard": leaderboard(board, reference="ablation"),
        "comparison.curves": curves(comparison),
        "comparison.areas": areas(comparison),
        "comparison.specificity": specificity(board),
        "grid.rows": grid.rows.drop(columns="max_prompts").rename(columns={"threshold": "{factor}"}),
        "grid.effects": grid.effects(),
        "benchmark.pairwise": planted.pairwise(),
        "suite.checks": load_suite("zoo:bert-facts").checks(),
        **{f"read.{name}": frame for name, frame in small_reading(model, facts).tables().items()},
        **{f"prompts.{name}": frame for name, frame in fired.tables().items()},
        "prompts.summary": fired.summary,
        "prompts.contrasts": fired.contrasts,
        "logit_lens": logit_lens(model, model.encode(facts).prompts),
        **{f"trace.{name}": frame for name, frame in traced.tables().items()},
        "trace.summary": traced.summary,
        "trace.average_effects": traced.average_effects("ffn"),
        "trace.total_effects": traced.total_effects,
        "inj.summary": inj.summary,
        "del.summary": deletion.summary,
        "parameter_randomisation": parameter_randomisation(model, facts, "activation"),
        "scores": score(model, facts, "activation").to_frame(k=3),
    }


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_as_documented(frames: Frames, name: str) -> None:
    assert len(frames[name])
    assert problems(frames[name], TABLES[name].columns) == []


def test_every_table_is_documented(frames: Frames) -> None:
    assert sorted(frames) == sorted(TABLES)


def test_what_is_not_documented_and_what_is_not_there_are_found(frames: Frames) -> None:
    columns = TABLES["comparison.rows"].columns
    rows = frames["comparison.rows"]
    assert problems(rows.assign(extra=1), columns) == ["extra is not documented"]
    assert problems(rows.drop(columns="group"), columns) == ["group is not there"]
    grid = frames["grid.rows"].assign(extra="a")
    assert problems(grid, TABLES["grid.rows"].columns) == ["extra is not documented"]
    assert problems(rows.assign(n_prompts=0.5), columns) == ["n_prompts is float64, documented as integer"]


@pytest.mark.parametrize("what", ["comparison", "benchmark"])
def test_columns_without_which_nothing_is_read_are_documented(what: str) -> None:
    for wanted, kinds in ((OWN_TEXTS, ("text",)), (OWN_NUMBERS, ("integer", "number"))):
        for table, names in wanted.get(what, {}).items():
            said = {column.name: column.kind for column in TABLES[f"{what}.{table}"].columns}
            assert all(said[name] in kinds for name in names)


def test_the_page_is_what_the_code_says() -> None:
    assert (Path(__file__).parents[2] / "docs" / "columns.md").read_text(encoding="utf-8") == page()
