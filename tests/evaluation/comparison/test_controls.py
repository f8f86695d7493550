"""Interventions, control neurons and control texts, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch

from kn_attrib import FactSet, NeuronModel, NeuronSet, amplify, set_activation, suppress
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.comparison.control_facts import MEMBERS, group_prompts
from kn_attrib.evaluation.comparison.control_neurons import SelectedNeurons, matched_set, strengths
from kn_attrib.evaluation.measure.interventions import Change, Interventions
from kn_attrib.evaluation.measure.known_facts import Selection, select_facts
from kn_attrib.evaluation.measure.metrics import effect
from kn_attrib.evaluation.measure.outcomes import Evaluator, Job, Outcome
from kn_attrib.evaluation.measure.plain_text import given_sentences, plain_texts, sentences_of
from kn_attrib.evaluation.vocabulary import GROUP_NAMES, GROUPS, check_controls, check_interventions
from kn_attrib.neurons import Neuron
from kn_attrib.techniques.deciles import deciles

OWN = NeuronSet([(0, 3), (1, 4), (2, 30)])


@pytest.fixture(params=["masked", "causal"])
def model(request: pytest.FixtureRequest, load_tiny: Callable[..., NeuronModel]) -> NeuronModel:
    return load_tiny(request.param)


@pytest.fixture
def selection(model: NeuronModel, facts: FactSet) -> Selection:
    return select_facts(model, facts, keep=("unknown",))


# -- what interventions do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_changed_row_equals_the_context_manager(model: NeuronModel, selection: Selection, everywhere: bool) -> None:
    texts = selection.targets[0].held_out
    values = (0.3, -1.2, 0.7)
    positions: Literal["answer", "all"] = "all" if everywhere else "answer"
    jobs = [Job(t, OWN, factor, (), everywhere) for t in texts for factor in (0.0, 3.0)]
    jobs += [Job(t, OWN, 0.0, values, everywhere) for t in texts]
    found = Evaluator(model).run(jobs)
    for job, outcome in zip(jobs, found, strict=True):
        value = torch.tensor(values, dtype=torch.float64)
        by_hand = (
            set_activation(model, OWN, value, positions) if job.shift else amplify(model, OWN, job.factor, positions)
        )
        with by_hand:
            _, batch = next(iter(model.batches(job.text.queries)))
            expected = float(model.answers(batch).logprob[0])
        assert outcome.logprob == pytest.approx(expected, abs=1e-9)
    assert len(set(found)) == len(found)


def test_mean_and_resample_take_what_other_facts_have(model: NeuronModel, selection: Selection) -> None:
    changes = Interventions(model, selection.pool, factor=2.5, seed=0)
    target = selection.targets[0]
    ids, usual = changes.usual("capital")
    assert sorted(ids) == sorted(c.fact.id for c in selection.pool)
    own = next(c for c in selection.pool if c.fact.id == ids[0])
    recorded = [model.record(batch)[0] for text in own.prompts for _, batch in model.batches(text.queries)]
    assert any(torch.allclose(usual[0], each, atol=1e-9) for each in recorded)
    others = [i for i, fact in enumerate(ids) if fact != target.fact.id]
    expected = [float(usual[others, n.layer, n.index].mean()) for n in OWN]
    change = changes.of("mean", target, OWN)
    assert change is not None
    assert change.factor == 0
    assert change.shift == pytest.approx(expected)
    drawn = changes.of("resample", target, OWN)
    assert drawn is not None
    rows = [tuple(float(usual[i, n.layer, n.index]) for n in OWN) for i in others]
    assert drawn.shift in rows
    assert changes.of("suppress", target, OWN) == Change(0.0)
    assert changes.of("amplify_everywhere", target, OWN) == Change(2.5, (), True)


def test_without_other_facts_there_is_no_mean(model: NeuronModel, facts: FactSet) -> None:
    alone = select_facts(model, facts[:1], keep=("unknown",))
    assert Interventions(model, alone.pool).of("mean", alone.targets[0], OWN) is None


def test_bad_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown intervention 'supress'. Did you mean 'suppress'"):
        check_interventions(["supress"])
    with pytest.raises(ConfigError, match="interventions is empty"):
        check_interventions([])
    with pytest.raises(ConfigError, match="unknown control 'rand'"):
        check_controls(["rand"])


def test_perplexity_by_hand() -> None:
    before = [Outcome(math.log(0.5), 1, 1), Outcome(math.log(0.125), 2, 3)]
    found = effect(before, before)
    assert found["perplexity_before"] == pytest.approx(4.0)  # the geometric mean of 2 and 8
    assert found["perplexity_after"] == pytest.approx(4.0)


def test_one_layer_at_zero(model: NeuronModel, selection: Selection) -> None:
    texts = selection.targets[1].held_out
    layer = NeuronSet((1, i) for i in range(model.n_neurons))
    for text, outcome in zip(texts, Evaluator(model).without_ffn(texts, [1]), strict=True):
        with suppress(model, layer):
            _, batch = next(iter(model.batches(text.queries)))
            assert outcome.logprob == pytest.approx(float(model.answers(batch).logprob[0]), abs=1e-9)


# -- control neurons ---------------------------------------------------------------------------------------------------


def test_matched_neurons_share_layer_and_decile() -> None:
    strength = torch.rand(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = deciles(strength[None])[0]
    for seed in range(5):
        drawn = matched_set(OWN, strength, seed, "f")
        assert len(drawn) == 3
        assert not set(drawn) & set(OWN)
        for a, b in zip(OWN, drawn, strict=True):
            assert a.layer == b.layer
            assert cells[a] == cells[b]
    cell = [Neuron(0, int(i)) for i in (cells[0] == cells[0, 3]).nonzero()]
    assert matched_set(NeuronSet(cell), strength, 0, "f") == NeuronSet(cell)  # no others are left


def test_controls_from_other_facts_and_from_scores(model: NeuronModel) -> None:
    sets = {
        "r:a": NeuronSet([(0, 1), (0, 2)]),
        "r:b": NeuronSet([(0, 2), (1, 5)]),
        "s:c": NeuronSet([(0, 2), (1, 5), (2, 9)]),
    }
    lowest = {fact: [Neuron(2, 3), Neuron(2, 1), Neuron(0, 0)] for fact in sets}
    chosen = SelectedNeurons(model, sets, {fact: fact[0] for fact in sets}, lowest, seed=0)
    assert chosen.control("other_fact_same_relation", "r:a") == sets["r:b"]
    assert chosen.control("other_fact_same_relation", "s:c") is None
    assert chosen.control("other_fact_other_relation", "r:b") == sets["s:c"]
    assert chosen.control("other_fact_other_relation", "s:c") in (sets["r:a"], sets["r:b"])
    assert chosen.control("always_on", "r:a") == NeuronSet([(0, 2), (1, 5)])  # of three facts, of two
    assert chosen.control("bottom_k", "r:a") == NeuronSet([(2, 3), (2, 1)])
    assert chosen.control("random_matched", "r:a") is None
    drawn = chosen.control("random", "r:a")
    assert drawn is not None
    assert len(drawn) == 2


def test_strengths_are_means_over_prompts(model: NeuronModel, selection: Selection) -> None:
    texts = selection.targets[0].prompts
    write, slope = strengths(model, texts)
    norms = model.value_norms()
    recorded = [model.record(batch)[0] for text in texts for _, batch in model.batches(text.queries)]
    assert torch.allclose(write, torch.stack([(a.abs() * norms) for a in recorded]).mean(0), atol=1e-9)
    step, neuron = 1e-6, (1, 7)
    expected = []
    for text in texts:
        _, batch = next(iter(model.batches(text.queries)))
        value = float(model.record(batch)[0, 1, 7])
        logs = []
        for move in (-step, step):
            with set_activation(model, [neuron], value + move):
                logs.append(float(model.answers(batch).logprob[0]))
        expected.append(abs(logs[1] - logs[0]) / (2 * step))
    assert float(slope[neuron]) == pytest.approx(sum(expected) / len(expected), rel=1e-4)


# -- plain words -------------------------------------------------------------------------------------------------------


def test_plain_words_are_neither_answer_nor_subject(model: NeuronModel, selection: Selection) -> None:
    sentences = sentences_of(selection.pool, seed=0)
    texts = plain_texts(model, sentences, seed=0)
    assert 0 < len(texts) <= len(sentences)
    for text in texts:
        assert text.fact.answer not in {"Paris", "Rome", "Berlin", "Madrid", "France", "Italy", "Germany", "Spain"}
        assert text.text.endswith("[Y]") or model.kind == "masked"
        assert not text.text.startswith("[Y]")
    groups = group_prompts(selection.targets[0], selection.pool, 2, 0, texts)
    assert len(groups["plain_text"]) == 2
    assert set(groups["plain_text"]) <= set(texts)


def test_a_users_own_sentences(model: NeuronModel) -> None:
    texts = plain_texts(model, given_sentences(["the people lies in Rome", "", "zebra zebra zebra"]))
    assert [t.fact.answer for t in texts] in (["people"], ["lies"], ["in"], ["Rome"])  # zebras are unknown
    with pytest.raises(ConfigError, match="plain_text holds no sentence"):
        given_sentences(["  "])


def test_every_group_of_facts_says_who_is_in_it() -> None:
    assert ("target", *MEMBERS, "plain_text") == GROUPS
    assert set(GROUPS) <= set(GROUP_NAMES)
