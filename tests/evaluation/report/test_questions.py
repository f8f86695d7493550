"""The answers in words follow from the rows: synthetic comparisons whose truth is known."""

from __future__ import annotations

import re

import pytest

from kn_attrib.evaluation import answers
from kn_attrib.evaluation.report.evidence import strongest
from kn_attrib.evaluation.report.specificity import specificity
from synthetic_comparison import BASE, FACTS, RELATIONS, Effects, synthetic, with_rows


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
    assert found[0].answer == "A comparison takes at least two: add methods, random among them."
    assert found[3].answer.startswith("To ask, add greedy_ablation to the methods: it silences")
    assert answers(synthetic({("ablation", "method", "target"): -0.5}))[3].answer.startswith("To ask, add methods that")
    few = {("good", "method", "target"): -0.6, ("poor", "method", "target"): -0.2}
    assert "the subject: no such facts" in answers(synthetic(few))[1].answer
    assert "nothing can be said of whose they are" in answers(synthetic(few))[1].answer
    assert answers(synthetic(few))[2].verdict == "unknown"


def test_no_claim_without_feed_forward_blocks() -> None:
    found = answers(synthetic(BASE, ffn=-0.1))
    assert [a.verdict for a in found] == ["unknown"] * 4 + ["no"]
    assert all(a.answer.startswith("No claim possible: all feed-forward neurons together") for a in found[:4])
    assert [re.match(r"No claim possible about ([\w ]+): ", a.short)[1] for a in found[:4]] == [  # type: ignore[index]
        "methods", "whose neurons they are", "what else they carry", "search"
    ]  # fmt: skip
    assert len({a.short for a in found}) == 5
    assert re.search(r"together: −(9|10)\.\d % \[", found[0].short)
    assert found[4].short.startswith("Too little for claims about neurons: silencing all blocks changes p(answer) by −")
    assert "no neuron claim can be made for this model" in found[4].answer


def test_noise_is_not_told_apart() -> None:
    equal: Effects = {(m, "method", "target"): -0.4 for m in ("a", "b", "c")}
    wrong = sum(answers(synthetic(equal, noise=0.2, seed=s))[0].verdict != "unknown" for s in range(20))
    assert wrong <= 3  # 5 % of 20 is one; the chance of four or more is below 2 %
