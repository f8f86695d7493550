"""The controls that are made from another method's scores: `random_matched` and `shuffled`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kn_attrib import Batch, FactScorer, NeuronModel, Pool, register, score
from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.methods import Activation, RandomMatched, Shuffled
from kn_attrib.techniques.deciles import deciles

CONTROLS = (RandomMatched, Shuffled)


def batch_of(model: NeuronModel, facts: FactSet) -> Batch:
    """All prompts of one length, several facts."""
    _, batch = next(iter(model.batches(model.encode(facts).prompts)))
    assert len({fact.id for fact in batch.facts}) > 1
    return batch


def cells_of(model: NeuronModel, batch: Batch) -> Tensor:
    """Layer and decile of each neuron as one number, the decile found by counting."""
    strength = model.record(batch).abs() * model.value_norms()
    below = (strength[..., None, :] < strength[..., None]).sum(-1)
    layers = torch.arange(model.n_layers)[None, :, None]
    return layers * 10 + below * 10 // model.n_neurons


def test_deciles_by_hand() -> None:
    values = torch.tensor([[[3.0, 1.0, 2.0, 0.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0]]])
    assert deciles(values).tolist() == [[[3, 1, 2, 0, 9, 8, 7, 6, 5, 4]]]
    assert Counter(deciles(torch.rand(1, 1, 20)).flatten().tolist()) == dict.fromkeys(range(10), 2)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_hands_each_layers_scores_out_anew(
    tiny: NeuronModel, facts: FactSet, control: type[RandomMatched] | type[Shuffled]
) -> None:
    batch = batch_of(tiny, facts)
    base = Activation().score(tiny, batch)
    found = control(base="activation").score(tiny, batch)
    assert torch.equal(found.sort(-1).values, base.sort(-1).values)
    assert (found != base).float().mean() > 0.5


def test_matched_scores_stay_in_their_cell(tiny: NeuronModel, facts: FactSet) -> None:
    """In every layer and decile the same scores as the base's, so at any budget the same layers and deciles."""
    batch = batch_of(tiny, facts)
    cells = cells_of(tiny, batch)
    base = Activation().score(tiny, batch)
    found = RandomMatched(base="activation").score(tiny, batch)
    for prompt in range(len(batch)):
        for cell in range(10 * tiny.n_layers):
            here = cells[prompt] == cell
            assert here.sum() >= 4
            assert torch.equal(found[prompt][here].sort().values, base[prompt][here].sort().values)


def test_no_pick_is_drawn_while_others_of_its_cell_are_left(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batch_of(tiny, facts)
    cells = cells_of(tiny, batch)
    base = Activation().score(tiny, batch).flatten(1)
    found = RandomMatched(base="activation", share=0.05).score(tiny, batch).flatten(1)
    n_picks = round(0.05 * base.shape[1])
    assert n_picks >= 7
    for prompt in range(len(batch)):
        picks = base[prompt].topk(n_picks).indices.tolist()
        drawn = found[prompt].topk(n_picks).indices.tolist()
        flat = cells[prompt].flatten().tolist()
        assert Counter(flat[i] for i in picks) == Counter(flat[i] for i in drawn)
        per_cell = Counter(flat[i] for i in picks)
        for pick in set(picks) & set(drawn):
            assert per_cell[flat[pick]] > flat.count(flat[pick]) / 2
    assert set(base[0].topk(n_picks).indices.tolist()) != set(found[0].topk(n_picks).indices.tolist())


@pytest.mark.parametrize("control", CONTROLS)
def test_a_controls_draw_depends_on_seed_and_fact(
    tiny: NeuronModel, facts: FactSet, control: type[RandomMatched] | type[Shuffled]
) -> None:
    batch = batch_of(tiny, facts)
    first, again, other = (control(base="activation", seed=seed).score(tiny, batch) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_prompts_of_a_fact_share_a_permutation_unless_asked(tiny: NeuronModel, facts: FactSet) -> None:
    def places(per: str, fact: int) -> Tensor:
        """Where each prompt's permutation sends what: all activations differ, so it can be read off."""
        found = score(tiny, facts[fact], Shuffled(base="activation", per=per)).values
        base = score(tiny, facts[fact], "activation").values
        return (found[..., None] == base[..., None, :]).int().argmax(-1)

    shared, own = places("fact", 0), places("prompt", 0)
    assert torch.equal(shared, shared[:1].expand_as(shared))
    assert not torch.equal(own[0], own[1])
    assert not torch.equal(shared[0], places("fact", 1)[0])


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.usefixtures("registry")
def test_a_base_that_needs_fitting_is_fitted(
    tiny: NeuronModel, facts: FactSet, control: type[RandomMatched] | type[Shuffled]
) -> None:
    @register("fact_mean")
    @dataclass(frozen=True)
    class FactMean(FactScorer):
        def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
            return {fact.id: pool.activations[pool.of(fact)].mean(0) for fact in pool.facts}

    found = score(tiny, facts[0], control(base="fact_mean"), contrast=facts[1:])
    base = score(tiny, facts[0], "fact_mean")
    assert torch.allclose(found.values.sort(-1).values, base.values.sort(-1).values)
    with pytest.raises(MethodError, match="fact_mean was not fitted on fact"):
        control(base="fact_mean").score(tiny, batch_of(tiny, facts))


@pytest.mark.parametrize("control", CONTROLS)
def test_an_unknown_base_is_refused(control: type[RandomMatched] | type[Shuffled]) -> None:
    with pytest.raises(MethodError, match=r"integrated_gradient'\. Did you mean 'integrated_gradients'"):
        control(base="integrated_gradient")


def test_bad_parameters_of_controls_are_refused() -> None:
    with pytest.raises(MethodError, match=r"share is 1\.5; expected a share of the neurons"):
        RandomMatched(share=1.5)
    with pytest.raises(MethodError, match=r"shuffled: unknown per 'prompts'\. Did you mean 'prompt'"):
        Shuffled(per="prompts")
