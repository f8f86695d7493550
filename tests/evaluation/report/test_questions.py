"""The answers in words follow from the rows: synthetic comparisons whose truth is known."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kn_attrib import Comparison
from kn_attrib.evaluation import answers
from kn_attrib.evaluation.report.answer import Answer, Number, Panel, panel
from kn_attrib.evaluation.report.answer_figure import answer_figure, answer_text
from kn_attrib.evaluation.report.evidence import strongest
from kn_attrib.evaluation.report.specificity import specificity

RELATIONS, FACTS = 12, 4
Effects = dict[tuple[str, str, str], float]
"""(method, neurons, group) -> mean relative change."""

BASE: Effects = {
    ("good", "method", "target"): -0.6,
    ("good", "method", "same_object"): -0.5,
    ("good", "method", "same_subject"): -0.02,
    ("good", "method", "same_relation"): -0.02,
    ("good", "method", "other_relation"): 0.0,
    ("good", "method", "plain_text"): 0.0,
    ("good", "random", "target"): 0.0,
    ("poor", "method", "target"): -0.2,
    ("twin", "method", "target"): -0.598,
    ("ablation", "method", "target"): -0.5,
}


def synthetic(effects: Effects, ffn: float = -0.7, noise: float = 0.02, seed: int = 0) -> Comparison:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []

    def add(fact: str, method: str, selection: str, neurons: str, group: str, mean: float) -> None:
        for metric in ("relative_change", "delta_logprob"):
            rows.append(
                {"fact": fact, "relation": fact[:3], "method": method, "selection": selection, "neurons": neurons,
                 "n_neurons": 5, "intervention": "suppress", "group": group, "n_prompts": 4, "metric": metric,
                 "value": mean + rng.normal(0, noise)}
            )  # fmt: skip

    facts = [f"r{r:02d}:{i}" for r in range(RELATIONS) for i in range(FACTS)]
    for fact in facts:
        add(fact, "whole_ffn", "all", "method", "target", ffn)
        add(fact, "whole_ffn", "layer 0", "method", "target", ffn / 2)
        add(fact, "whole_ffn", "layer 1", "method", "target", ffn / 4)
        add(fact, "dropout", "0.1", "random", "target", -0.05)
        for (method, neurons, group), mean in effects.items():
            for selection in ("refined", "k=5"):
                add(fact, method, selection, neurons, group, mean)
    methods = list(dict.fromkeys(method for method, _, _ in effects))
    manifest = {"methods": [{"method": m} for m in methods], "settings": {"seed": 0, "interventions": ["suppress"]}}
    neurons = pd.DataFrame(columns=["method", "selection", "fact", "relation", "layer", "neuron"])
    return Comparison(pd.DataFrame(rows), pd.DataFrame({"fact": facts, "status": "used"}), neurons, manifest)


def test_all_five_questions() -> None:
    comparison = synthetic(BASE)
    found = answers(comparison)
    assert [a.verdict for a in found] == ["mixed", "no", "no", "no", "yes"]
    method, whose, else_, search, carried = (a.answer for a in found)
    assert strongest(comparison, "refined") == "good"
    assert "good costs the answer most: −60." in method
    assert "(n = 48 facts of 12 relations)" in method
    assert "2 of 3 other methods suppress less by more than chance" in method
    assert method.index("ablation (by") < method.index("poor (by")  # the nearest first
    assert "Not told apart from it: twin" in method
    assert "mostly neurons of the answer word, not of the fact" in whose
    assert re.search(r"answer word move by .*which is 8[345] % \[", whose)
    assert "within ±5% (equivalence p < 0.001, n = 48)" in else_
    assert "within ±0.05 nats" in else_
    assert re.search(r"good reaches 1[12]\d % \[", search)
    assert "exhaustive search of single neurons (no upper bound)" in search
    assert "−70." in carried
    assert "Of single layers, layer 0 matters most: −35." in carried
    assert "A random 10% of all neurons: −5." in carried


@pytest.mark.parametrize(
    ("changes", "question", "verdict", "words"),
    [
        ({("twin", "method", "target"): -0.3}, 0, "yes", "3 of 3 other methods"),
        ({("good", "method", "same_object"): -0.05}, 1, "yes", "belong to the fact more than to any of these"),
        ({("good", "method", "same_object"): -0.2}, 1, "mixed", "partly neurons of the answer word"),
        ({("good", "method", "same_relation"): -0.55}, 1, "no", "neurons of the answer word and the relation"),
        ({("good", "method", "other_relation"): -0.3}, 2, "yes", "not shown to be within ±5%"),
        (
            {("good", "method", "other_relation"): -0.3},
            2,
            "yes",
            "So other facts fall by 30 % [29, 30]: general",
        ),
        ({("good", "method", "other_relation"): 0.3}, 2, "mixed", "not shown to be within ±5%"),
        ({}, 2, "no", "Specificity: the fact itself loses +0.61 [+0.60, +0.62] nats"),
        ({("good", "method", "plain_text"): -0.3}, 2, "mixed", "not shown to be within ±0.05 nats"),
        ({("greedy_ablation", "method", "target"): -0.9}, 3, "yes", "of what greedy direct search suppresses"),
    ],
)
def test_answers_follow_the_rows(changes: Effects, question: int, verdict: str, words: str) -> None:
    found = answers(synthetic(BASE | changes))[question]
    assert found.verdict == verdict
    assert words in found.answer


def test_specificity_is_what_the_fact_loses_beyond_others() -> None:
    general = BASE | {("good", "method", "other_relation"): -0.45}
    for effects, nats, share in ((BASE, 0.6, 0.0), (general, 0.15, 0.75)):
        table = specificity(synthetic(effects, noise=0.001)).set_index(["method", "selection"])
        assert set(table.index.get_level_values(0)) == {"good"}  # nobody asked other facts under the others' neurons
        row = table.loc[("good", "refined")]
        assert row.nats == pytest.approx(nats, abs=0.002)
        assert row.low < nats < row.high
        assert row.share == pytest.approx(share, abs=0.005)
        assert row.n == RELATIONS * FACTS
    assert not len(specificity(synthetic(BASE), group="same_planet"))


def with_rows(comparison: Comparison, *more: tuple[str, str, str, float]) -> Comparison:
    """With ``(method, selection, group, effect)`` for every fact, 2 neurons each."""
    like = comparison.rows[(comparison.rows.method == "good") & (comparison.rows.selection == "refined")]
    like = like[(like.neurons == "method") & (like.group == "target")]
    added = [
        like.assign(method=method, selection=selection, group=group, value=effect, n_neurons=2)
        for method, selection, group, effect in more
    ]
    return replace(comparison, rows=pd.concat([comparison.rows, *added]))


def test_what_is_left_of_general_machinery_is_said() -> None:
    general = synthetic(BASE | {("good", "method", "other_relation"): -0.45})
    assert "are left" not in answers(general)[2].answer
    left = with_rows(general, ("good", "specific", "target", -0.25), ("good", "specific", "other_relation", -0.01))
    assert answers(left)[2].answer.endswith(
        "Without neurons that are refined for more than 10% of the facts of other relations too, 2.0 of 5.0 are left: "
        "the fact changes by −25.0 % [−25.0, −25.0], other relations by −1.0 % [−1.0, −1.0]."
    )


@pytest.mark.parametrize(("others", "words"), [(-0.7, "(not shown to be more than of any text)"), (-0.2, "(more than")])
def test_the_precondition_asks_for_this_fact_beyond_the_rest(others: float, words: str) -> None:
    comparison = with_rows(synthetic(BASE), ("whole_ffn", "all", "other_relation", others))
    assert comparison.precondition["mean"] == pytest.approx(-0.7, abs=0.01)
    found = answers(comparison)[4].answer
    assert f"Facts of other relations change by −{-100 * others:.1f} %" in found
    assert words in found


def test_the_most_specific_method_is_named() -> None:
    effects = BASE | {("good", "method", "other_relation"): -0.5, ("poor", "method", "other_relation"): 0.0}
    found = answers(synthetic(effects, noise=0.001))[0].answer
    assert "Most specific is poor: the fact loses +0.20" in found
    assert re.search(r"with good \+0\.10 .* \(told apart, p < 0\.001\)", found)
    assert (
        "the most specific too" in answers(synthetic(effects | {("good", "method", "other_relation"): 0.0}))[0].answer
    )
    assert "specific" not in answers(synthetic(BASE))[0].answer  # of one method alone others were asked


def test_neurons_that_break_everything_are_not_called_specific() -> None:
    known = {key: mean for key, mean in BASE.items() if key[0] != "twin"}
    broken = synthetic(known | {("good", "method", "other_relation"): -0.6}, noise=0.05)
    answer = answers(broken)[2]
    assert answer.verdict == "yes"
    assert "(not shown to be more than nothing)" in answer.answer
    assert "(more than nothing)" in answers(synthetic(known))[2].answer


def test_what_is_not_measured_is_not_answered() -> None:
    alone = synthetic({key: value for key, value in BASE.items() if key[0] == "good"})
    found = answers(alone)
    assert found[0].answer == "One method was run; a comparison takes at least two."
    assert found[3].answer == "Not measured: add greedy_ablation to the methods."
    few = {("good", "method", "target"): -0.6, ("poor", "method", "target"): -0.2}
    assert "the subject: no such facts" in answers(synthetic(few))[1].answer
    assert "nothing can be said of whose they are" in answers(synthetic(few))[1].answer
    assert answers(synthetic(few))[2].verdict == "unknown"


def test_no_claim_without_feed_forward_blocks() -> None:
    found = answers(synthetic(BASE, ffn=-0.1))
    assert [a.verdict for a in found] == ["unknown"] * 4 + ["no"]
    assert all(a.answer.startswith("No claim possible: all feed-forward neurons together") for a in found[:4])
    assert all(a.short.startswith("No claim possible: silencing all feed-forward neurons changes") for a in found[:4])
    assert re.search(r"p\(answer\) by −(9|10)\.\d % \[", found[0].short)
    assert found[4].short.startswith("Too little for claims about neurons: silencing all blocks changes p(answer) by −")
    assert "no neuron claim can be made for this model" in found[4].answer


def test_noise_is_not_told_apart() -> None:
    equal: Effects = {(m, "method", "target"): -0.4 for m in ("a", "b", "c")}
    wrong = sum(answers(synthetic(equal, noise=0.2, seed=s))[0].verdict != "unknown" for s in range(20))
    assert wrong <= 3  # 5 % of 20 is one; the chance of four or more is below 2 %


POINTS = r"−?(\d+)\.\d points \[−?\d+\.\d, −?\d+\.\d\]"
SHARE = r"(\d+) % \[−?\d+, \d+\]"
CHANGE = r"[+−](\d+)\.\d % \[[+−]\d+\.\d, [+−]\d+\.\d\]"
NATS = r"[+−]\d\.\d\d \[[+−]\d\.\d\d, [+−]\d\.\d\d\]"
TWO: Effects = {("good", "method", "target"): -0.6, ("poor", "method", "target"): -0.2}
GOOD: Effects = {key: mean for key, mean in BASE.items() if key[0] == "good"}
TWINS: Effects = {(name, "method", "target"): -0.6 for name in ("good", "one", "other", "third")}
BEGIN = {
    "yes": ("Yes: ", "Of the fact: ", "Enough "),
    "no": ("No: ", "Mostly of ", "Too little "),
    "mixed": ("Partly: ", "Partly of ", "Not ruled out: "),
    "unknown": ("Not known: ", "Not known whether ", "No claim possible: "),
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
            rf"Partly: good suppresses more than 2 of 3 other methods, by {POINTS} \(ablation\) to {POINTS} \(poor\); "
            r"it is not told apart from twin\.",
        ),
        (
            BASE | {("twin", "method", "target"): -0.3},
            0,
            "yes",
            rf"Yes: good suppresses more than all 3 other methods, by {POINTS} \(ablation\) to {POINTS} \(poor\)\.",
        ),
        (TWO, 0, "yes", r"Yes: good suppresses more than poor, by (40|39)\.\d points \[\d+\.\d, \d+\.\d\]\."),
        (
            TWINS | TWO,
            0,
            "mixed",
            rf"Partly: \w+ suppresses more than poor, by {POINTS}; it is not told apart from 3 others\.",
        ),
        (
            TWINS,
            0,
            "unknown",
            rf"Not known: \w+ is not told apart from any of the 3 other methods; the largest difference, to \w+, is "
            rf"{POINTS}\.",
        ),
        (
            {("a", "method", "target"): -0.4, ("b", "method", "target"): -0.4},
            0,
            "unknown",
            rf"Not known: (a is not told apart from b|b is not told apart from a); the difference is {POINTS}\.",
        ),
        (GOOD, 0, "unknown", r"Not known: one method was run\."),
        (
            BASE,
            1,
            "no",
            rf"Mostly of the answer word, not of the fact: other facts with the answer word move {SHARE} as much\.",
        ),
        (
            BASE | {("good", "method", "same_relation"): -0.55},
            1,
            "no",
            rf"Mostly of the answer word and the relation, not of the fact: other facts with the answer word move "
            rf"{SHARE} and those with the relation {SHARE} as much\.",
        ),
        (
            BASE | {("good", "method", "same_object"): -0.2},
            1,
            "mixed",
            rf"Partly of the answer word: other facts with the answer word move {SHARE} as much\.",
        ),
        (
            BASE | {("good", "method", "same_object"): -0.05},
            1,
            "yes",
            rf"Of the fact: other facts move less, most of all those with the answer word: {SHARE}\.",
        ),
        (
            only("same_relation"),
            1,
            "yes",
            rf"Of the fact: other facts move less, most of all those with the relation: {SHARE}; no other facts "
            r"have the answer word or the subject\.",
        ),
        (TWO, 1, "unknown", r"Not known: no other facts share anything with it\."),
        (
            GOOD | {("good", "method", "target"): 0.1},
            1,
            "unknown",
            rf"Not known: good's refined neurons are not shown to suppress the fact itself: {CHANGE}\.",
        ),
        (
            BASE,
            2,
            "no",
            rf"No: facts of other relations change by {CHANGE} \(within ±5%\) and the log-probability of plain words "
            rf"changes by {NATS} nats \(within ±0\.05 nats\)\.",
        ),
        (only("other_relation"), 2, "no", rf"No: facts of other relations change by {CHANGE} \(within ±5%\)\."),
        (
            BASE | {("good", "method", "other_relation"): -0.3},
            2,
            "yes",
            rf"Yes: facts of other relations fall by {SHARE}\.",
        ),
        (
            BASE | {("good", "method", "other_relation"): 0.3},
            2,
            "mixed",
            rf"Partly: facts of other relations change by {CHANGE}, more than ±5%\.",
        ),
        (
            BASE | {("good", "method", "other_relation"): 0.3, ("good", "method", "plain_text"): -0.05},
            2,
            "mixed",
            rf"Partly: facts of other relations change by {CHANGE}, more than ±5%; the log-probability of plain words "
            rf"changes by {NATS} nats, not shown to be within ±0\.05 nats\.",
        ),
        (
            BASE | {("good", "method", "other_relation"): -0.05},
            2,
            "mixed",
            rf"Not ruled out: facts of other relations change by {CHANGE}, not shown to be within ±5%\.",
        ),
        (TWO, 2, "unknown", r"Not known: neither facts of other relations nor plain words were asked\."),
        (
            BASE,
            3,
            "no",
            rf"No: good suppresses more than exhaustive search of single neurons, by {POINTS}; greedy direct search "
            r"was not run\.",
        ),
        (
            BASE | {("greedy_ablation", "method", "target"): -0.9},
            3,
            "yes",
            rf"Yes: greedy direct search suppresses more than (good|twin), by {POINTS}\.",
        ),
        (
            TWO | {("greedy_ablation", "method", "target"): -0.3},
            3,
            "no",
            rf"No: good suppresses more than greedy direct search, by {POINTS}\.",
        ),
        (
            TWO | {("greedy_ablation", "method", "target"): -0.6},
            3,
            "unknown",
            rf"Not known: good and greedy direct search are not told apart; the difference is {POINTS}\.",
        ),
        (TWO, 3, "unknown", r"Not known: not measured: add greedy_ablation to the methods\."),
        ({("ablation", "method", "target"): -0.5}, 3, "unknown", r"Not known: not measured: only searches were run\."),
        (BASE, 4, "yes", rf"Enough to ask about neurons: silencing all blocks changes p\(answer\) by {CHANGE}\."),
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
    assert "move 83 % [83, 83] as much" in second
    assert "changes by +0.00 [" in third or "changes by −0.00 [" in third
    assert "by 10.0 points [10.0, 10.0]; greedy" in fourth
    assert "by −70.0 % [−70.0, −70.0]." in last


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
    ("others", "words"), [(-0.7, "not shown to be more than facts of other"), (-0.2, ", more than facts of other")]
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
        "Shares. a <b> +10.0 % [−10.0, +30.0]; c −25.0 % [−50.0, +0.0]. Logs. a <b> +0.10 [−0.10, +0.30] nats. "
        "Gaps. c −25.0 points [−50.0, 0.0]."
    )
    figure = answer_figure(answer)
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
