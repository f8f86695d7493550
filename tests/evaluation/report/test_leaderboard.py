"""Equal budgets, costs, and shares of what direct search reaches, against values worked out by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from kn_attrib.cli import app
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.report.comparison import Comparison
from kn_attrib.evaluation.report.leaderboard import leaderboard, leaderboard_page, leaderboard_text

EFFECTS = {
    "greedy_ablation": {"a1": -0.8, "a2": -0.4, "b1": -0.6},
    "activation": {"a1": -0.1, "a2": -0.1, "b1": -0.3},
    "ablation": {"a1": -0.4, "a2": -0.2, "b1": -0.3},
}


def record(method: str, fact: str, value: float, **changes: str) -> dict[str, Any]:
    common = {"fact": fact, "relation": fact[0], "method": method, "selection": "k=5", "neurons": "method",
              "n_neurons": 5, "intervention": "suppress", "group": "target", "n_prompts": 2}  # fmt: skip
    return common | {"metric": "relative_change", "value": value} | changes


@pytest.fixture
def comparison() -> Comparison:
    rows = [record(m, fact, value) for m, effects in EFFECTS.items() for fact, value in effects.items()]
    rows += [record(m, "a1", 9.0, neurons="random") for m in EFFECTS]
    rows += [record("whole_ffn", fact, -0.9, selection="all") for fact in ("a1", "a2", "b1")]
    methods: list[dict[str, Any]] = [
        {"method": m, "name": m, "params": {}, "seconds": 6.0, "forwards": 30, "backwards": 12, "prompts": 6}
        for m in ("activation", "ablation", "greedy_ablation")
    ]
    manifest = {
        "methods": methods, "settings": {"seed": 0}, "model": {"name": "m"}, "facts": {}, "complete": True, "seconds": 1
    }  # fmt: skip
    facts = pd.DataFrame({"fact": [], "relation": [], "status": [], "prompts": [], "held_out": []})
    neurons = pd.DataFrame({"method": [], "selection": [], "fact": [], "relation": [], "layer": [], "neuron": []})
    return Comparison(pd.DataFrame(rows), facts, neurons, manifest)


def with_others(comparison: Comparison) -> Comparison:
    """The same, with facts of other relations asked too."""
    rows = [
        record("ablation", fact, value, group=group, metric="delta_logprob")
        for fact, own in (("a1", -2.0), ("a2", -1.0), ("b1", -3.0))
        for group, value in (("target", own), ("other_relation", -0.5))
    ]
    rows += [record("ablation", fact, -0.1, group="other_relation") for fact in ("a1", "a2", "b1")]
    return replace(comparison, rows=pd.concat([comparison.rows, pd.DataFrame(rows)]))


def test_means_are_over_relations_and_costs_per_prompt(comparison: Comparison) -> None:
    table: Any = leaderboard(comparison)
    assert list(table.index) == ["greedy_ablation", "ablation", "activation"]  # strongest first
    assert table.loc["greedy_ablation", "k=5"] == pytest.approx(-0.6)  # relations: (0.8 + 0.4) / 2 and 0.6
    assert table.loc["activation", "k=5"] == pytest.approx(-0.2)
    assert table.loc["activation", ["seconds", "forwards", "backwards"]].tolist() == [1.0, 5.0, 2.0]


def test_shares_of_search_are_ratios_of_means_with_paired_intervals(comparison: Comparison) -> None:
    table: Any = leaderboard(comparison)
    assert table.loc["activation", "k=5 of search"] == pytest.approx(1 / 3)
    # Every fact of "ablation" has half of the search's effect: in each paired resample the ratio is one half.
    half = table.loc["ablation", ["k=5 of search", "k=5 of search low", "k=5 of search high"]]
    assert half.tolist() == pytest.approx([0.5, 0.5, 0.5])
    assert table.loc["activation", "k=5 of search low"] < 1 / 3 < table.loc["activation", "k=5 of search high"]


def test_without_the_search_there_are_no_shares(comparison: Comparison) -> None:
    assert not [c for c in leaderboard(comparison, reference="nothing").columns if "search" in c]
    text: Any = leaderboard_text(comparison)
    assert text.loc["ablation", "k=5"].startswith("−30.0 [")
    assert text.loc["ablation", "k=5 of search"] == "+50.0 [+50.0, +50.0]"


def test_specificity_is_in_nats_beyond_other_relations(comparison: Comparison) -> None:
    assert not [c for c in leaderboard(comparison).columns if "beyond" in c]  # nobody asked others
    asked = with_others(comparison)
    table: Any = leaderboard(asked)
    assert table.loc["ablation", "k=5 beyond others"] == pytest.approx(
        (1.0 + 2.5) / 2
    )  # relations: (1.5 + 0.5) / 2 and 2.5
    assert pd.isna(table.loc["activation", "k=5 beyond others"])
    text: Any = leaderboard_text(asked)
    assert text.loc["ablation", "k=5 beyond others"].startswith("+1.75 [")
    assert text.loc["activation", "k=5 beyond others"] == "–"


PAGE = """\
## m

Silencing all feed-forward neurons at the answer position changes p(answer) by −90.0 % [−90.0, −90.0] (n = 3). Whether \
that is a loss of more than 20%, which any neuron claim takes, is open: too few facts to tell (n = 3 of 2 relations).

| method | s / prompt | forwards / prompt | backwards / prompt | k=5 | k=5 of search |
|---|---|---|---|---|---|
| `greedy_ablation` | 1.000 | 5 | 2 | −60.0 [−70.0, −50.0] | +100.0 [+100.0, +100.0] |
| `ablation` | 1.000 | 5 | 2 | −30.0 [−35.0, −25.0] | +50.0 [+50.0, +50.0] |
"""


def test_a_page_has_a_section_per_comparison(comparison: Comparison, tmp_path: Path) -> None:
    methods = [m for m in comparison.manifest["methods"] if m["method"] != "activation"]
    comparison = replace(comparison, manifest=comparison.manifest | {"methods": methods})
    assert leaderboard_page([comparison]) == PAGE
    for name in ("first", "second"):
        comparison.save(tmp_path / name)
    done = CliRunner().invoke(app, ["report", f"{tmp_path}/first", f"{tmp_path}/second", "--markdown"])
    assert done.output == leaderboard_page([comparison, comparison])
    assert {p.suffix for p in (tmp_path / "first").iterdir()} == {".parquet", ".json"}, "nothing is drawn"


def test_the_published_page_is_of_this_form(comparison: Comparison) -> None:
    asked = with_others(comparison)
    other = asked.rows[asked.rows.selection == "k=5"].assign(selection="k=20")
    both = replace(asked, rows=pd.concat([asked.rows, other]))
    published = (Path(__file__).parents[3] / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    sections = re.findall(
        r"^## zoo:\S+\n\nSilencing [^\n]+\n\n(\|[^\n]+\n\|[-|]+\n)(?:\| `[^\n]+\|\n)+", published, re.M
    )
    head = leaderboard_page([both]).split("\n\n")[2].splitlines(keepends=True)[:2]
    assert sections == ["".join(head)] * 2


def test_a_page_needs_neurons_of_equal_budgets(comparison: Comparison) -> None:
    refined = replace(comparison, rows=comparison.rows.replace({"selection": {"k=5": "refined"}}))
    with pytest.raises(ConfigError, match="on m suppressed no neurons of equal budgets"):
        leaderboard_page([refined])
