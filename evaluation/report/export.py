"""A comparison for others: its leaderboard as JSON of a published schema, its tables as a dataset for Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.records.folder import check_folder
from kn_attrib.evaluation.records.tables import TABLES
from kn_attrib.evaluation.records.text import markdown
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.report.leaderboard import SEARCH, has_leaderboard, leaderboard_text, shares_of_search
from kn_attrib.evaluation.report.specificity import specificity
from kn_attrib.store import check_new_file, parsed_json, write_json, write_parquet, write_text

FORMAT, VERSION = "kn_attrib.leaderboard", 1
"""What a leaderboard's JSON says it is; the version changes with whatever its readers would notice."""
DTYPES = {"text": "string", "integer": "int64", "number": "float64", "truth": "bool"}
"""Of columns, so that empty tables have types too."""
TEXTS = ["subject", "answer", "skip_reason"]
"""Columns that hold words of the facts, which may be under a licence of their own."""


def leaderboard_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what `export_leaderboard` writes."""
    text = (files("kn_attrib.evaluation.report") / "schemas" / "leaderboard.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = parsed_json(text)
    return schema


def export_leaderboard(comparison: ComparisonRows, path: Path, overwrite: bool = False) -> Path:
    """Write the leaderboard as JSON (see `leaderboard_schema`); returns the path.

    Raises
    ------
    ConfigError : no neurons of equal budgets were suppressed.
    StoreError : the file exists (unless ``overwrite``), or cannot be written.
    """
    check_new_file(path, overwrite)
    write_json(path, leaderboard_record(comparison))
    return path


def leaderboard_record(comparison: ComparisonRows) -> dict[str, Any]:
    """The leaderboard in plain numbers and text; what is not a number is None.

    Raises
    ------
    ConfigError : no neurons of equal budgets were suppressed.
    """
    if not has_leaderboard(comparison):
        raise ConfigError("the comparison suppressed no neurons of equal budgets; give compare budgets and suppress.")
    manifest = comparison.manifest
    used = comparison.facts[comparison.facts.status == "used"]
    measures = pd.concat(_measures(comparison), ignore_index=True)
    facts = {"sha256": manifest["facts"]["sha256"], "given": len(comparison.facts), "used": len(used)}
    record = {
        "format": FORMAT,
        "version": VERSION,
        "complete": comparison.complete,
        "created": manifest["created"],
        "model": manifest["model"],
        "facts": facts | {"relations": used.relation.nunique()},
        "parameters": _parameters(manifest["settings"]),
        "versions": manifest["versions"],
        "precondition": comparison.precondition,
        "methods": [_method(each, measures) for each in manifest["methods"]],
    }
    plain: dict[str, Any] = _plain(record)
    return plain


def _measures(comparison: ComparisonRows) -> Iterator[pd.DataFrame]:
    """Columns ``method, measure, selection, mean, low, high, n``."""
    columns = ["method", "measure", "selection", "mean", "low", "high", "n"]
    changes = comparison.cell(intervention="suppress", neurons="method", group="target")
    changes = changes[changes.selection.isin(comparison.selections)]
    yield changes.assign(measure="relative_change")[columns]
    beyond = specificity(comparison).rename(columns={"nats": "mean"})
    yield beyond.assign(measure="nats_beyond_other_relations")[columns]
    if SEARCH in comparison.methods:
        for budget in comparison.budgets:
            shares = shares_of_search(comparison, budget, SEARCH).rename(columns={"share": "mean"})
            yield shares.reset_index().assign(measure="share_of_search", selection=budget)[columns]


def _method(record: Mapping[str, Any], measures: pd.DataFrame) -> dict[str, Any]:
    own = measures[measures.method == record["method"]].drop(columns="method").astype({"n": int})
    prompts = record["prompts"]
    return {
        **{name: record[name] for name in ("method", "name", "params", "units")},
        "per_prompt": {name: record[name] / prompts for name in ("seconds", "forwards", "backwards")},
        "prompts": prompts,
        "measures": own.to_dict("records"),
    }


def _parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, with the number of sentences given in the place of their words."""
    sentences = settings.get("plain_text")
    return {**settings, "plain_text": None if sentences is None else len(sentences)}


def _plain(value: Any) -> Any:
    """The same for JSON, which has no word for what is not a number."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def export_dataset(
    comparison: ComparisonRows, folder: Path, license: str | None = None, overwrite: bool = False
) -> Path:
    """Write ``data/*.parquet`` and ``README.md`` with the dataset's card; returns the folder.

    Parameters
    ----------
    license : for the card, such as ``"cc-by-4.0"``; None leaves it out.

    Raises
    ------
    StoreError : the folder holds something (unless ``overwrite``), or cannot be written.
    """
    check_folder(folder, overwrite)
    for name, table in comparison.tables().items():
        kinds = {c.name: DTYPES[c.kind] for c in TABLES[f"comparison.{name}"].columns if c.name in table}
        write_parquet(folder / "data" / f"{name}.parquet", table.astype(kinds).drop(columns=TEXTS, errors="ignore"))
    # Last: what has a card is whole.
    write_text(folder / "README.md", _card(comparison, license))
    return folder


def _card(comparison: ComparisonRows, license: str | None) -> str:
    """The dataset's card: settings for its readers in YAML, then what it holds, in words."""
    model, manifest = comparison.manifest["model"]["name"], comparison.manifest
    names = list(comparison.tables())
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"data/{name}.parquet"}]} for name in names
    ]
    configs[0]["default"] = True
    front = {
        **({"license": license} if license else {}),
        "pretty_name": f"Attribution methods compared on {model}",
        "tags": ["interpretability", "knowledge-neurons", "kn_attrib"],
        "configs": configs,
    }
    facts = manifest["facts"]
    tables = [f"### {name}\n\n{TABLES[f'comparison.{name}'].without(TEXTS).markdown()}\n" for name in names]
    board = [f"## Equal budgets\n\n{markdown(leaderboard_text(comparison))}\n"] if has_leaderboard(comparison) else []
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
            f"# Attribution methods compared on {model}\n",
            f"{comparison.verdict()}\n",
            f"Made by kn_attrib {manifest['versions']['kn_attrib']} on {manifest['created']}: model {model} "
            f"(SHA-256 {manifest['model']['sha256']}), {facts['n']} facts (SHA-256 {facts['sha256']}), seed "
            f"{comparison.seed}. The facts are named by id and relation; their texts are not part of this dataset.\n",
            *board,
            "## Columns\n",
            *tables,
        ]
    )
