"""Refinement on tensors small enough to do by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kn_attrib import Neuron, NeuronScores, NeuronSet, Refinement, refine, refine_all
from kn_attrib.errors import ConfigError, NeuronError
from kn_attrib.scoring.refinement import PRESETS, specific_sets


def scores(*prompts: list[float], fact: str = "a", relation: str = "r") -> NeuronScores:
    """One layer of neurons; one list per prompt."""
    n = len(prompts)
    return NeuronScores(
        torch.tensor(prompts, dtype=torch.float32)[:, None], (fact,) * n, (relation,) * n, ("t",) * n, "by hand"
    )


def joined(*parts: NeuronScores) -> NeuronScores:
    values = torch.cat([p.values for p in parts])
    facts, relations, texts = (sum((getattr(p, f) for p in parts), ()) for f in ("facts", "relations", "texts"))
    return NeuronScores(values, facts, relations, texts, "by hand")


def kept(found: NeuronSet) -> list[int]:
    return [n.index for n in found]


# Maxima 10, 20, 5; at threshold 0.2 the bars are 2, 4, 1.
HAND = scores([10, 2, 1.9, 0], [20, 3.9, 4, 0], [5, 1, 1, -9])


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, [0]), (0.7, [0]), (2 / 3, [0, 1, 2]), (0.5, [0, 1, 2]), (0.0, [0, 1, 2])],
)
def test_a_neuron_passes_by_threshold_and_is_kept_by_share(share: float, expected: list[int]) -> None:
    assert kept(refine(HAND, threshold=0.2, share=share)) == expected


def test_the_maximum_is_taken_over_all_layers() -> None:
    values = torch.tensor([[[10.0, 0.0], [3.0, 1.0]]])
    one = NeuronScores(values, ("a",), ("r",), ("t",), "by hand")
    assert refine(one, threshold=0.2, share=1) == NeuronSet([(0, 0), (1, 0)])


def test_strict_turns_at_least_into_more_than() -> None:
    exact = scores([10, 2, 3], [10, 3, 1])
    assert kept(refine(exact, threshold=0.2, share=0.5)) == [0, 1, 2]
    # 2 is not more than 0.2 * 10, and one prompt of two is not more than half.
    assert kept(refine(exact, threshold=0.2, share=0.5, strict=True)) == [0]
    assert kept(refine(exact, threshold=0.2, share=0.4, strict=True)) == [0, 1, 2]


def test_shares_are_counted_in_whole_prompts() -> None:
    seven_of_ten = scores(*([[1.0, 1.0]] * 7), *([[1.0, 0.0]] * 3))
    assert kept(refine(seven_of_ten, share=0.7)) == [0, 1]  # 0.7 * 10 is 7.000000000000001 in some orders
    assert kept(refine(seven_of_ten, share=0.7, strict=True)) == [0]


def test_min_prompts_but_never_more_than_there_are() -> None:
    four = scores([1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0])
    assert kept(refine(four, share=0.25, min_prompts=1)) == [0, 1, 2]
    assert kept(refine(four, share=0.25, min_prompts=2)) == [0, 1]
    assert kept(refine(four, share=0.25, min_prompts=3)) == [0]
    assert kept(refine(scores([1, 1, 0], [1, 0, 0]), share=0.25, min_prompts=3)) == [0]


def test_scores_without_a_positive_one_select_nothing() -> None:
    for values in ([0.0, 0, 0], [-1.0, -2, -3]):
        assert len(refine(scores(values), threshold=0.2, share=1)) == 0
        assert len(refine(scores(values), threshold=0.0, share=0)) == 0
        assert len(refine(scores(values), percentile=50.0)) == 0


def test_percentile() -> None:
    five = scores([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert kept(refine(five, percentile=50.0, share=0.5)) == [0, 1, 3, 4]
    assert kept(refine(five, percentile=50.0, share=1)) == []
    assert kept(refine(scores([1, 2, 3, 4, 5]), percentile=80.0)) == [4]


def test_percentile_of_as_many_scores_as_a_large_model_has() -> None:
    values = torch.arange(17_000_000.0).reshape(17, 1, -1)  # torch.quantile refuses more than 2²⁴ numbers
    many = NeuronScores(values, ("a",) * 17, ("r",) * 17, ("t",) * 17, "by hand")
    assert len(refine(many, percentile=99.999, share=1)) == 10


def test_k_takes_the_highest_means() -> None:
    assert kept(refine(HAND, k=1)) == [0]
    assert kept(refine(HAND, k=3)) == [0, 1, 2]
    with pytest.raises(NeuronError, match="budget k = 5; expected 1 to 4, the number of neurons"):
        refine(HAND, k=5)


def test_negatives_are_taken_away() -> None:
    mine = scores([10, 5, 5], [10, 5, 5])
    others = joined(scores([10, 0, 0], fact="b"), scores([0, 0, 10], fact="c"))
    assert kept(refine(mine)) == [0, 1, 2]
    assert kept(refine(mine, negatives=others)) == [1]


def test_negatives_go_through_the_same_refinement() -> None:
    mine = scores([10, 5], [10, 5])
    seldom = scores([10, 5], [10, 0], fact="b")  # neuron 1 passes in half of the prompts
    assert kept(refine(mine, share=0.7, negatives=seldom)) == [1]
    assert kept(refine(mine, share=0.5, negatives=seldom)) == []


def ten_prompts(*passes: int) -> list[list[float]]:
    """Ten prompts in which neuron ``i`` passes in the first ``passes[i]``."""
    return [[float(prompt < n) for n in passes] for prompt in range(10)]


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ((10, 9, 8, 1), [0, 1, 2]),  # three at 0.7: nothing to adapt
        ((10, 6, 5, 1), [0, 1]),  # one at 0.7: loosened to 0.65 and 0.6, where two are enough
        ((10, 4, 4, 4), [0, 1, 2, 3]),  # six steps down to 0.4
        ((10, 10, 8, 8, 8, 7, 7), [0, 1, 2, 3, 4]),  # seven at 0.7: tightened once
        ((10,) * 7, [0, 1, 2, 3, 4, 5, 6]),  # even 1.0 keeps all seven
    ],
)
def test_adaptive_share_goes_both_ways(passes: tuple[int, ...], expected: list[int]) -> None:
    assert kept(refine(scores(*ten_prompts(*passes)), adaptive=True)) == expected


def test_adaptive_share_stops_at_six_passes() -> None:
    # Of twenty prompts 0.4 asks for eight, and 0.35, which a seventh pass would reach, for seven.
    values = [[1.0, float(prompt < 7), float(prompt < 7)] for prompt in range(20)]
    assert kept(refine(scores(*values), adaptive=True)) == [0]


def test_adaptive_share_moves_for_the_mean_of_each_relation() -> None:
    few = scores(*ten_prompts(10, 6, 0, 0), fact="few", relation="lonely")
    also_few = scores(*ten_prompts(10, 6, 0, 0), fact="also", relation="shared")
    many = scores(*ten_prompts(10, 10, 10, 6), fact="many", relation="shared")
    found = refine_all(joined(few, also_few, many), Refinement(adaptive=True))
    # Alone, one neuron is too few; with `many` beside it the relation's mean is two already.
    assert {name: kept(neurons) for name, neurons in found.items()} == {
        "few": [0, 1],
        "also": [0],
        "many": [0, 1, 2],
    }


def test_facts_stay_in_their_order_and_keep_their_own_rows() -> None:
    mixed = joined(
        scores([1, 0], fact="b", relation="r2"), scores([0, 1], fact="a"), scores([1, 0], fact="b", relation="r2")
    )
    found = refine_all(mixed, Refinement())
    assert list(found) == ["b", "a"]
    assert (kept(found["b"]), kept(found["a"])) == ([0], [1])
    assert kept(refine_all(mixed, Refinement(k=1))["b"]) == [0]


def test_presets_are_the_published_settings() -> None:
    assert PRESETS["dai2022"] == Refinement(threshold=0.2, share=0.7, strict=False, min_prompts=3, adaptive=True)
    assert PRESETS["eleuther"] == Refinement(threshold=0.3, share=0.5, strict=True, min_prompts=1, adaptive=False)
    assert Refinement.preset("dai2022", share=0.5).share == 0.5
    assert refine(HAND, preset="eleuther") == refine(HAND, threshold=0.3, share=0.5, strict=True)


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"share": 0.9}, Refinement(threshold=0.3, share=0.9, strict=True)),
        ({"threshold": 0.2, "strict": False}, Refinement(threshold=0.2, share=0.5)),
        ({"percentile": 60}, Refinement(percentile=60, share=0.5, strict=True)),
        ({"min_prompts": 2, "adaptive": True}, replace(Refinement.preset("eleuther"), min_prompts=2, adaptive=True)),
    ],
)
def test_what_is_given_overrides_the_preset(given: dict[str, Any], settings: Refinement) -> None:
    generator = torch.Generator().manual_seed(0)
    many = joined(*(scores(torch.rand(12, generator=generator).tolist()) for _ in range(5)))
    found = refine(many, preset="eleuther", **given)
    assert found == refine_all(many, settings)["a"]
    assert found != refine(many, preset="eleuther")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 3, "threshold": 0.2}, "k stands in the place of threshold; give one of them"),
        ({"k": 3, "preset": "dai2022"}, "k stands in the place of preset; give one of them"),
        ({"k": 3, "percentile": 90}, "k stands in the place of percentile"),
        ({"percentile": 90, "threshold": 0.3}, "percentile stands in the place of threshold, which is 0.3"),
    ],
)
def test_settings_that_exclude_one_another_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refine(HAND, **given)


def test_a_refinement_says_the_same_of_its_own() -> None:
    with pytest.raises(ConfigError, match="k stands in the place of adaptive, which is True"):
        Refinement(adaptive=True, k=3)
    with pytest.raises(ConfigError, match=r"k stands in the place of threshold, which is 0\.3"):
        Refinement.preset("eleuther", k=3)


def test_published_settings_adapt() -> None:
    loosened = scores(*ten_prompts(10, 6, 5, 1))
    assert kept(refine(loosened, preset="dai2022")) == [0, 1]


def test_an_unknown_preset_shows_close_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown refinement preset 'dai2021'\. Did you mean 'dai2022'\? Known: dai"):
        refine(HAND, preset="dai2021")


def test_several_facts_at_once_are_refused() -> None:
    with pytest.raises(NeuronError, match=r"scores are of 2 facts; expected one\. Use refine_all for several"):
        refine(joined(HAND, scores([1, 2, 3, 4], fact="b")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, r"threshold is 1\.5; expected a number from 0 to 1"),
        ({"share": float("nan")}, "share is nan; expected a number from 0 to 1"),
        ({"percentile": 101.0}, r"percentile is 101\.0; expected a number from 0 to 100"),
        ({"min_prompts": 0}, "min_prompts is 0; expected at least 1"),
        ({"k": 0}, "k is 0; expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"refinement {message}"):
        Refinement(**settings)


def test_specific_sets_leave_out_what_other_relations_have() -> None:
    mine, ours, all_ = Neuron(0, 1), Neuron(0, 2), Neuron(1, 3)
    sets = {
        "a:1": NeuronSet([mine, ours, all_]),
        "a:2": NeuronSet([ours, all_]),
        "b:1": NeuronSet([all_]),
        "b:2": NeuronSet([ours]),
        "b:3": NeuronSet(),
    }
    relations = {fact: fact[0] for fact in sets}
    # Of the three facts of b one has `all_` and one `ours`; both facts of a have both.
    assert specific_sets(sets, relations, 0.3) == {
        "a:1": NeuronSet([mine]),
        "a:2": NeuronSet(),
        "b:1": NeuronSet(),
        "b:2": NeuronSet(),
        "b:3": NeuronSet(),
    }
    loose = specific_sets(sets, relations, 0.34)
    assert loose["a:1"] == sets["a:1"]
    assert loose["b:1"] == NeuronSet()
    assert specific_sets(sets, relations, 1.0) == sets
    with pytest.raises(ConfigError, match="one relation"):
        specific_sets(sets, dict.fromkeys(sets, "a"))
    with pytest.raises(ConfigError, match="general is 2"):
        specific_sets(sets, relations, 2)
