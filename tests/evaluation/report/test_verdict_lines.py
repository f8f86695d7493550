"""The one-line verdicts and their charts follow from the rows."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from kn_attrib.evaluation import answers
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.report.answer import Answer, Number, Panel, panel
from kn_attrib.evaluation.report.answer_figure import answer_figure, answer_text
from synthetic_comparison import BASE, Effects, synthetic, with_rows

POINTS = r"−?(\d+)\.\d points \[−?\d+\.\d, −?\d+\.\d\]"
SHARE = r"(\d+) % \[−?\d+, \d+\]"
CHANGE = r"[+−]?(\d+)\.\d+ % \[[+−]?\d+\.\d+, [+−]?\d+\.\d+\]"
NATS = r"[+−]?\d\.\d+ \[[+−]?\d\.\d+, [+−]?\d\.\d+\]"
IN = r"n = 48 of 12 relations\)"
N = rf"\({IN}"
"""How many facts, and of how many relations; in brackets of its own, and at the end of others."""
TWO: Effects = {("good", "method", "target"): -0.6, ("poor", "method", "target"): -0.2}
GOOD: Effects = {key: mean for key, mean in BASE.items() if key[0] == "good"}
TWINS: Effects = {(name, "method", "target"): -0.6 for name in ("good", "one", "other", "third")}
BEGIN = {
    "yes": ("Yes: ", "Of the fact: ", "Enough "),
    "no": ("No: ", "Mostly of ", "Too little "),
    "mixed": ("Partly: ", "Partly of ", "Not ruled out: "),
    "unknown": ("Not known: ", "Not known whether ", "No claim possible about "),
}
"""What a line begins with, by verdict."""


def only(*groups: str) -> Effects:
    return {(m, n, g): mean for (m, n, g), mean in BASE.items() if g == "target" or g in groups}


@pytest.mark.parametrize(
    ("effects", "question", "verdict", "short"),
    [
        (
            BASE,
            0,
            "mixed",
            rf"Partly: good suppresses more than 2 of 3 other methods, by {POINTS} \(ablation\) to "
            rf"{POINTS} \(poor\) {N}; "
            r"it is not told apart from twin\.",
        ),
        (
            BASE | {("twin", "method", "target"): -0.3},
            0,
            "yes",
            rf"Yes: good suppresses more than all 3 other methods, by {POINTS} \(ablation\) to {POINTS} \(poor\) {N}\.",
        ),
        (TWO, 0, "yes", rf"Yes: good suppresses more than poor, by (40|39)\.\d points \[\d+\.\d, \d+\.\d\] {N}\."),
        (
            TWINS | TWO,
            0,
            "mixed",
            rf"Partly: \w+ suppresses more than poor, by {POINTS} {N}; it is not told apart from 3 others\.",
        ),
        (
            TWINS,
            0,
            "unknown",
            rf"Not known: \w+ is not told apart from any of the 3 other methods; the largest difference, to \w+, is "
            rf"{POINTS} {N}\.",
        ),
        (
            {("a", "method", "target"): -0.4, ("b", "method", "target"): -0.4},
            0,
            "unknown",
            rf"Not known: (a is not told apart from b|b is not told apart from a); the difference is {POINTS} {N}\.",
        ),
        (GOOD, 0, "unknown", r"Not known: one method was run\."),
        (
            BASE,
            1,
            "no",
            rf"Mostly of the answer word, not of the fact: other facts with the answer word move {SHARE} as much {N}\.",
        ),
        (
            BASE | {("good", "method", "same_relation"): -0.55},
            1,
            "no",
            rf"Mostly of the answer word and the relation, not of the fact: other facts with the answer word move "
            rf"{SHARE} as much {N} and those with the relation move {SHARE} as much {N}\.",
        ),
        (
            BASE | {("good", "method", "same_object"): -0.2},
            1,
            "mixed",
            rf"Partly of the answer word: other facts with the answer word move {SHARE} as much {N}\.",
        ),
        (
            BASE | {("good", "method", "same_object"): -0.05},
            1,
            "yes",
            rf"Of the fact: other facts move less, most of all those with the answer word: {SHARE} {N}\.",
        ),
        (
            only("same_relation"),
            1,
            "yes",
            rf"Of the fact: other facts move less, most of all those with the relation: {SHARE} {N}; no other facts "
            r"have the answer word or the subject\.",
        ),
        (TWO, 1, "unknown", r"Not known: no other facts share anything with it\."),
        (
            GOOD | {("good", "method", "target"): 0.1},
            1,
            "unknown",
            rf"Not known: good's refined neurons are not shown to suppress the fact itself: {CHANGE} {N}\.",
        ),
        (
            BASE,
            2,
            "no",
            rf"No: facts of other relations change by {CHANGE} \(within ±5%, {IN} and the "
            rf"log-probability of plain words "
            rf"changes by {NATS} nats \(within ±0\.05 nats, {IN}\.",
        ),
        (only("other_relation"), 2, "no", rf"No: facts of other relations change by {CHANGE} \(within ±5%, {IN}\."),
        (
            BASE | {("good", "method", "other_relation"): -0.3},
            2,
            "yes",
            rf"Yes: facts of other relations fall by {SHARE} {N}\.",
        ),
        (
            BASE | {("good", "method", "other_relation"): 0.3},
            2,
            "mixed",
            rf"Partly: facts of other relations change by {CHANGE}, more than ±5% {N}\.",
        ),
        (
            BASE | {("good", "method", "other_relation"): 0.3, ("good", "method", "plain_text"): -0.05},
            2,
            "mixed",
            rf"Partly: facts of other relations change by {CHANGE}, more than ±5% {N}; the "
            rf"log-probability of plain words "
            rf"changes by {NATS} nats, not shown to be within ±0\.05 nats \(equivalence p = 0\.\d+, {IN}\.",
        ),
        (
            BASE | {("good", "method", "other_relation"): -0.05},
            2,
            "mixed",
            rf"Not ruled out: facts of other relations change by {CHANGE}, not shown to be within ±5% "
            rf"\(equivalence p = 0\.\d+, {IN}\.",
        ),
        (TWO, 2, "unknown", r"Not known: neither facts of other relations nor plain words were asked\."),
        (
            BASE,
            3,
            "no",
            rf"No: good suppresses more than exhaustive search of single neurons, by {POINTS} {N}; "
            rf"greedy direct search "
            r"was not run\.",
        ),
        (
            BASE | {("greedy_ablation", "method", "target"): -0.9},
            3,
            "yes",
            rf"Yes: greedy direct search suppresses more than (good|twin), by {POINTS} {N}\.",
        ),
        (
            TWO | {("greedy_ablation", "method", "target"): -0.3},
            3,
            "no",
            rf"No: good suppresses more than greedy direct search, by {POINTS} {N}\.",
        ),
        (
            TWO | {("greedy_ablation", "method", "target"): -0.6},
            3,
            "unknown",
            rf"Not known: good and greedy direct search are not told apart; the difference is {POINTS} {N}\.",
        ),
        (TWO, 3, "unknown", r"Not known: no direct search was run\."),
        ({("ablation", "method", "target"): -0.5}, 3, "unknown", r"Not known: only searches were run\."),
        (
            BASE,
            4,
            "yes",
            rf"Enough to ask about neurons: silencing all blocks changes p\(answer\) by {CHANGE} {N}\.",
        ),
    ],
)
def test_each_verdict_in_a_line(effects: Effects, question: int, verdict: str, short: str) -> None:
    found = answers(synthetic(effects))[question]
    assert found.verdict == verdict
    assert re.fullmatch(short, found.short), found.short
    assert found.short.startswith(BEGIN[verdict])
    if question != 3:  # there the sign of the difference is turned
        assert all(interval in found.answer for interval in re.findall(r"\[[^]]*\]", found.short))


def test_the_line_says_the_numbers_that_were_put_in() -> None:
    apart = {key: mean for key, mean in BASE.items() if key[0] != "twin"}
    first, second, third, fourth, last = (a.short for a in answers(synthetic(apart, noise=0.0001)))
    assert "by 10.0 points [10.0, 10.0] (ablation) to 40.0 points [40.0, 40.0] (poor)" in first
    assert "move 83 % [83, 83] as much (n = 48 of 12 relations)" in second
    assert "changes by 0.00 [0.00, 0.00] nats (within" in third
    assert "by 10.0 points [10.0, 10.0] (n = 48 of 12 relations); greedy" in fourth
    assert "by −70.0 % [−70.0, −70.0] (n = 48 of 12 relations)." in last


def test_what_cannot_be_told_is_not_called_partly() -> None:
    comparison = synthetic(BASE)
    rows = comparison.rows.copy()
    same = (rows.method == "good") & (rows.group == "same_object")
    # As large as a fourth on average, but of either sign in single relations.
    rows.loc[same, "value"] = np.where(rows[same].relation.str[1:].astype(int) % 2, 0.6, -0.9)
    found = answers(replace(comparison, rows=rows))[1]
    assert found.verdict == "unknown"
    assert found.short.startswith(
        "Not known whether also of the answer word: other facts with the answer word move 25 % [−"
    )
    assert found.answer.endswith("So it cannot be told whether they are neurons of the answer word as well.")


@pytest.mark.parametrize(
    ("others", "words"), [(-0.7, "are not shown to lose less."), (-0.2, "). Facts of other relations lose less.")]
)
def test_the_line_on_blocks_holds_them_against_other_facts(others: float, words: str) -> None:
    found = answers(with_rows(synthetic(BASE), ("whole_ffn", "all", "other_relation", others)))[4]
    assert words in found.short
    assert [n.name for n in found.panels[0].numbers][:2] == ["all blocks", "all blocks, other relations"]


def test_charts_hold_the_numbers_of_the_verdict() -> None:
    method, whose, else_, search, carried = answers(synthetic(BASE, noise=0.0001))
    (gaps,) = method.panels
    assert [(n.name, round(n.mean, 2), n.clear) for n in gaps.numbers[1:]] == [
        ("ablation", 0.1, True),
        ("poor", 0.4, True),
    ]
    assert not gaps.numbers[0].clear or gaps.numbers[0].name == "twin"
    assert [round(n.mean, 2) for n in whose.panels[0].numbers] == [0.83, 0.03, 0.03]
    assert whose.panels[0].marks == (0.25, 0.5)
    assert [p.unit for p in else_.panels] == ["%", "nats"]
    assert [p.unit for p in search.panels] == ["%", "points"]
    assert round(search.panels[1].numbers[0].mean, 2) == -0.1
    assert [round(n.mean, 2) for n in carried.panels[0].numbers] == [-0.7, -0.35, -0.05]


def test_of_many_methods_the_chart_shows_the_nearest_and_the_last() -> None:
    many: Effects = {(f"m{i:02d}", "method", "target"): -0.6 + 0.02 * i for i in range(15)}
    (gaps,) = answers(synthetic(many, noise=0.001))[0].panels
    assert [n.name for n in gaps.numbers] == [*(f"m{i:02d}" for i in range(1, 10)), "m14"]
    assert "Of 14 the nearest 9 and the last." in gaps.caption


def test_a_chart_draws_what_its_words_say() -> None:
    numbers = [Number("a <b>", 0.1, -0.1, 0.3), Number("c", -0.25, -0.5, 0.0, clear=False)]
    panels = panel("Shares.", numbers) + panel("Logs.", numbers[:1], "nats", marks=(0.05,))
    panels += panel("Gaps.", numbers[1:], "points")
    answer = Answer("q", "a", "yes", "Yes.", panels)
    assert answer_text(answer) == (
        "Shares. a <b> +10.0 % [−10.0, +30.0]; c −25.0 % [−50.0, 0.0]. Logs. a <b> +0.10 [−0.10, +0.30] nats. "
        "Gaps. c −25.0 points [−50.0, 0.0]."
    )
    figure = figure_of(answer_figure(answer))
    assert [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes] == [
        ["a <b>", "c"],
        ["a <b>"],
        ["c"],
    ]
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert faces == ["0.15", "white"]
    figure.draw_without_rendering()
    units = [{label.get_text().split()[-1] for label in axes.get_xticklabels()} for axes in figure.axes]
    assert units == [{"%"}, {"nats"}, {"points"}]


def test_numbers_that_are_none_are_not_drawn() -> None:
    odd = Number("odd", float("nan"), 0.0, 1.0)
    assert panel("None.", [odd]) == ()
    assert panel("One.", [odd, Number("even", 0.5, 0.0, 1.0)]) == (Panel("One.", (Number("even", 0.5, 0.0, 1.0),)),)
