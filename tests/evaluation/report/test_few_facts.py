"""With few facts the answers say that they are few; of one fact there is no interval, and of nothing no share."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kn_attrib import Comparison
from kn_attrib.evaluation import answers
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.records.text import interval_text, number_text, with_interval
from kn_attrib.evaluation.report.answer import share
from kn_attrib.evaluation.report.answer_figure import answer_figure
from kn_attrib.evaluation.report.figures import figures_of
from kn_attrib.evaluation.statistics.sample import LEAST_FACTS, LEAST_RELATIONS
from kn_attrib.evaluation.statistics.significance import relations_needed
from synthetic_comparison import BASE, Effects, synthetic, with_rows

TWO: Effects = {("good", "method", "target"): -0.9, ("random", "method", "target"): 0.0}
THREE: Effects = TWO | {("poor", "method", "target"): -0.3}
SEARCHED: Effects = TWO | {("greedy_ablation", "method", "target"): -0.99}
NOTHING: Effects = {(name, "method", group): 0.0 for name in ("zero", "flat") for group in ("target", "same_object")}


def with_manifest(comparison: Comparison) -> Comparison:
    """With what figures and tables ask of a manifest."""
    model = {"name": "m", "layers": 2}
    return replace(comparison, manifest=comparison.manifest | {"model": model, "complete": True})


def test_two_relations_cannot_be_tested() -> None:
    found = answers(synthetic(THREE, relations=2))[0]
    assert found.verdict == "unknown"
    assert re.fullmatch(
        r"Cannot be tested: 2 relations allow no p below 0\.5; with 2 comparisons at least 7 are needed\. By the "
        r"intervals over facts, good suppresses more than all 2 other methods, by (59|60|61)\.\d points \[[\d., ]+\] "
        r"\(poor\) to (89|90|91)\.\d points \[[\d., ]+\] \(random\) \(n = 8 of 2 relations\)\.",
        found.short,
    )
    assert "p = " not in found.answer
    assert not any(number.clear for number in found.panels[0].numbers)


@pytest.mark.parametrize(("relations", "decided"), [(5, False), (6, True)])
def test_tests_decide_from_as_many_relations_as_are_said_to_be_needed(relations: int, decided: bool) -> None:
    method, _, _, search, _ = answers(synthetic(SEARCHED, relations=relations))
    assert relations_needed(1, 0.05) == 6
    assert (search.verdict == "yes") == decided
    assert search.short.startswith("Yes: " if decided else "Cannot be tested: 5 relations allow no p below 0.0625; at ")
    assert "at least 7 are needed" in method.short  # two comparisons
    if not decided:
        assert "By the interval over facts, greedy direct search suppresses more than good, by " in search.short


def test_what_intervals_do_not_tell_either() -> None:
    same: Effects = {(name, "method", "target"): -0.5 for name in ("a", "b")}
    short = answers(synthetic(same, relations=3, noise=0.1))[0].short
    assert short.startswith("Cannot be tested: 3 relations allow no p below 0.25; at least 6 are needed. By the ")
    assert "is ahead of no other (n = 12 of 3 relations)." in short


def test_one_fact_is_no_verdict_and_has_no_interval() -> None:
    found = answers(synthetic(BASE, relations=1, per_relation=1, noise=0.001))
    assert [each.verdict for each in found] == ["unknown"] * 5
    assert found[0].short.endswith(
        "1 relation allows no p below 1; with 3 comparisons at least 7 are needed. One fact has no interval either "
        "(n = 1 of 1 relation)."
    )
    assert found[1].short == "Not known: too few facts to tell (n = 1 of 1 relation)."
    for each in found:
        assert "n = 1 of 1 relation" in each.short
        assert not re.search(r"\d[^\]]*\[[^–\]]", each.short + each.answer), "an interval of one fact"
        assert "nan" not in each.short + each.answer


@pytest.mark.parametrize(("relations", "per_relation"), [(LEAST_RELATIONS - 1, 4), (LEAST_FACTS - 1, 1)])
def test_fewer_than_the_least_are_no_verdict(relations: int, per_relation: int) -> None:
    found = answers(synthetic(BASE, relations=relations, per_relation=per_relation))
    assert [each.verdict for each in found] == ["unknown"] * 5
    assert all(f"too few facts to tell (n = {relations * per_relation} of {relations} relations)" in each.short
               for each in found[1:3] + found[4:])  # fmt: skip


def test_the_least_are_a_verdict() -> None:
    found = answers(synthetic(BASE, relations=LEAST_RELATIONS, per_relation=LEAST_FACTS // LEAST_RELATIONS))
    assert [each.verdict for each in found[1:3] + found[4:]] == ["no", "no", "yes"]


def test_a_group_of_few_facts_is_not_decided() -> None:
    comparison = synthetic(BASE | {("good", "method", "same_object"): -0.02})
    assert answers(comparison)[1].verdict == "yes"
    few = (comparison.rows.group == "same_object") & (comparison.rows.fact != "r00:0")
    one = replace(comparison, rows=comparison.rows[~few])
    found = answers(one)[1]
    assert found.verdict == "unknown"
    assert re.fullmatch(
        r"Not known whether also of the answer word: other facts with the answer word −?\d+ % \[–\], too few facts to "
        r"tell \(n = 1 of 1 relation\)\.",
        found.short,
    )


@pytest.mark.parametrize(("noise", "per_relation", "relations"), [(0.02, 2, 2), (0.6, 2, 6)])
def test_blocks_that_may_carry_enough_are_not_said_to_carry_too_little(
    noise: float, per_relation: int, relations: int
) -> None:
    comparison = synthetic(BASE, ffn=-0.27, noise=noise, relations=relations, per_relation=per_relation)
    found = answers(comparison)[4]
    assert found.verdict == "unknown"
    assert "carried elsewhere" not in found.answer
    assert not comparison.claim_possible
    assert not comparison.claim_excluded
    few = f"too few facts to tell (n = {relations * per_relation} of {relations} relations)"
    assert few in found.short
    assert few in comparison.verdict()


def test_blocks_that_carry_too_little_are() -> None:
    comparison = synthetic(BASE, ffn=-0.1)
    assert comparison.claim_excluded
    assert comparison.verdict().endswith("the answers are carried elsewhere.")
    assert answers(comparison)[4].verdict == "no"


def test_methods_that_change_nothing_have_no_share(recwarn: pytest.WarningsRecorder) -> None:
    nothing = NOTHING | {("greedy_ablation", "method", "target"): 0.0}
    found = answers(synthetic(nothing, noise=0.0))
    assert not any("nan" in text or "inf" in text for each in found for text in (each.short, each.answer))
    assert found[0].short == (
        "Not known: no method's neurons cost the answer anything; zero's change it by 0.0 % [0.0, 0.0] "
        "(n = 48 of 12 relations)."
    )
    assert found[1].short.endswith("not shown to suppress the fact itself: 0.0 % [0.0, 0.0] (n = 48 of 12 relations).")
    assert "greedy direct search suppresses nothing that" in found[3].answer
    assert not recwarn.list


def test_why_refined_neurons_are_of_another_method() -> None:
    comparison = synthetic(THREE | {("poor", "method", "other_relation"): 0.0})
    assert "(of all methods' refined neurons they cost the fact most) change" in answers(comparison)[1].answer
    rows = comparison.rows.copy()
    rows.loc[(rows.method == "poor") & (rows.selection == "refined") & (rows.group == "target"), "value"] -= 0.65
    whose, else_ = answers(replace(comparison, rows=rows))[1:3]
    why = "poor's refined neurons (of all methods' refined neurons they cost the fact most; with 5 neurons of each "
    assert whose.answer.startswith(f"{why}method, good's do) change the fact itself by −9")
    assert f"{why}method, good's do): facts of other relations" in else_.answer


def test_all_blocks_are_enough_or_not_never_both() -> None:
    short = answers(with_rows(synthetic(BASE), ("whole_ffn", "all", "other_relation", -0.7)))[4].short
    assert short.endswith("). That may not be about the fact: facts of other relations are not shown to lose less.")


def test_a_bound_is_not_rounded_to_the_margin_it_misses() -> None:
    assert interval_text(0.02, -0.001, 0.0512, False, marks=(-0.05, 0.05)) == "+0.020 [−0.001, +0.051]"
    assert interval_text(0.02, -0.001, 0.0512, False) == "+0.02 [0.00, +0.05]"
    assert interval_text(0.02, 0.01, 0.05, False, marks=(0.05,)) == "+0.02 [+0.01, +0.05]"  # it is the margin
    assert interval_text(0.02, 0.01, 0.05 + 1e-9, False, marks=(0.05,)) == "+0.02 [+0.01, +0.05]"
    assert share(0.54, 0.503, 0.6, marks=(0.5,)) == "54.0 % [50.3, 60.0]"
    comparison = synthetic(BASE | {("good", "method", "other_relation"): -0.05}, noise=0.0015)
    ends = re.search(r"change by −(5\.\d+|4\.\d+) % \[−(\d\.\d+), −(\d\.\d+)\]", answers(comparison)[2].short)
    assert ends is not None
    assert "5.0" not in ends.groups()[1:]


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert number_text(-0.0004, 1, scale=100) == number_text(0.0004, 1, scale=100, signed=True) == "0.0"
    assert share(-0.001, -0.02, 0.0) == "0 % [−2, 0]"
    assert number_text(-0.06, 1) == "−0.1"
    assert number_text(-10.0, 1) == "−10.0"


def test_there_is_no_interval_of_what_has_none() -> None:
    nan = float("nan")
    assert with_interval(0.774, nan, nan, 1, " %", scale=100) == "77.4 % [–]"
    assert with_interval(0.774, 0.1, float("inf"), 1) == "0.8 [–]"
    assert interval_text(nan, nan, nan, percent=True) == "–"


def test_one_fact_is_drawn_without_intervals(recwarn: pytest.WarningsRecorder, tmp_path: Path) -> None:
    comparison = with_manifest(synthetic(BASE, relations=1, per_relation=1, noise=0.001))
    for each in answers(comparison):
        for axes in answer_figure(each):
            axes.figure.draw_without_rendering()
    figures = figures_of(comparison)
    for name in ("suppress", "budgets", "specificity", "controls"):
        figure_of(figures[name]()).savefig(tmp_path / f"{name}.png")
    assert str(comparison.table().loc["good", "target"]).endswith(" % [–]")
    assert np.isnan(comparison.precondition["low"])
    assert not recwarn.list
