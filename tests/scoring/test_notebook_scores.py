"""Scores and sets of neurons in a notebook: the numbers are the object's, and nothing in them is markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from kn_attrib import NeuronScores, NeuronSet
from kn_attrib.neurons import NAMED

SCORES = NeuronScores(
    values=torch.tensor([[[0.5, 0.1], [0.0, -0.25]], [[0.7, 0.3], [0.2, -0.75]]]),
    facts=("f", "f"),
    relations=("r", "r"),
    texts=("a [Y]", "b [Y]"),
    method="by_hand",
    gap=torch.tensor([[0.01, -0.02], [0.03, -0.05]]),
    difference=torch.tensor([[0.6, -0.25], [1.0, -0.5]]),
)


def shown(item: NeuronScores | NeuronSet) -> str:
    html = item._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 1
    assert "background" not in html
    assert "color" not in html
    return html


def rows(html: str) -> list[list[str]]:
    """Texts of the cells of the table's body."""
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>.*?</tr>", body, re.S)]


def test_scores_show_the_mean_over_prompts_by_layer() -> None:
    html = shown(SCORES)
    assert ">by_hand on f: 2 prompts × 2 layers × 2 neurons</caption>" in html
    assert rows(html) == [
        ["0", "0 (0.6), 1 (0.2)", "0.02", "0.8"],
        ["1", "0 (0.1), 1 (−0.5)", "−0.035", "−0.375"],
    ]
    assert "Largest completeness gap of any prompt and layer: 0.05.</p>" in html


def test_scores_without_gaps_do_not_speak_of_them() -> None:
    html = shown(replace(SCORES, gap=None, difference=None))
    assert "gap" not in html
    assert [len(row) for row in rows(html)] == [2, 2]


def test_only_the_highest_are_named() -> None:
    values = torch.zeros(1, 3, 50)
    values[0, 2, 7] = 9.0
    values[0, 0, 40:49] = 1.0
    html = shown(NeuronScores(values, ("f",), ("r",), ("t",), "m"))
    assert [row[0] for row in rows(html)] == ["0", "2"]
    assert rows(html)[1][1] == "7 (9)"
    assert rows(html)[0][1].count("(1)") == 9


def test_scores_of_several_facts_have_a_row_for_each() -> None:
    html = shown(replace(SCORES, facts=("f", "g"), gap=None, difference=None))
    assert "by_hand on 2 facts" in html
    assert rows(html)[0] == ["f", "1", "L0:0 (0.5), L0:1 (0.1), L1:0 (0)"]
    assert rows(html)[1] == ["g", "1", "L0:0 (0.7), L0:1 (0.3), L1:0 (0.2)"]


def test_layers_that_ran_out_of_nodes_are_counted() -> None:
    capped = torch.tensor([[True, False], [False, False]])
    assert "1 of 4 prompts&#39; layers ran out of nodes" in shown(replace(SCORES, capped=capped))
    assert "ran out" not in shown(replace(SCORES, capped=torch.zeros(2, 2, dtype=torch.bool)))


@pytest.mark.parametrize("many", [False, True])
def test_hostile_names_are_escaped(many: bool) -> None:
    evil = "<script>alert(1)</script>"
    html = shown(replace(SCORES, method=evil, facts=(evil, "g" if many else evil)))
    assert html.count("&lt;script&gt;") == 2
    assert "<script" not in html


def test_scores_of_no_prompt_say_so() -> None:
    html = shown(SCORES[[]])
    assert "by_hand on 0 facts: 0 prompts" in html
    assert rows(html) == []


def test_a_set_shows_its_neurons_by_layer() -> None:
    html = shown(NeuronSet([(3, 7), (0, 5), (3, 2)]))
    assert ">3 neurons in 2 layers</caption>" in html
    assert rows(html) == [["0", "1", "5"], ["3", "2", "2, 7"]]


def test_many_neurons_of_a_layer_are_counted_and_the_first_named() -> None:
    (row,) = rows(shown(NeuronSet((1, i) for i in range(NAMED + 5))))
    assert row == ["1", str(NAMED + 5), ", ".join(map(str, range(NAMED))) + ", …"]


def test_an_empty_set_says_so() -> None:
    html = shown(NeuronSet())
    assert ">no neurons</caption>" in html
    assert rows(html) == []
    assert "<th" not in html
    assert ">1 neuron in 1 layer</caption>" in shown(NeuronSet([(0, 0)]))
