"""Facts written into chosen neurons: only these change, everything is undone, and what is claimed was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kn_attrib import Fact, NeuronSet, load_facts, load_model, suppress
from kn_attrib.errors import FactError, ModelError, NeuronError, StoreError
from kn_attrib.evaluation.planted.plant import Check, Plant, load_plants
from kn_attrib.evaluation.planted.planter import Planter, plant
from kn_attrib.evaluation.planted.recipe import Writing
from kn_attrib.facts.facts import FactSet
from kn_attrib.models.anatomy import input_linears
from kn_attrib.models.matrices import input_matrix, value_matrix
from kn_attrib.models.neuron_model import NeuronModel

NEURONS = NeuronSet([(3, 11), (3, 40), (3, 77)])
ZOO = ("bert-facts", "gpt2-facts", "llama-facts")


def counterfact(facts: FactSet, name: str, answer: str) -> Fact:
    return replace(facts[name], id=f"planted:{name}", answer=answer)


@pytest.fixture(scope="module")
def world() -> FactSet:
    return load_facts("world").of("capital", "currency", "continent").where(lambda f: not f.is_ambiguous)


@pytest.fixture(scope="module", params=ZOO)
def planted(request: pytest.FixtureRequest, world: FactSet) -> tuple[NeuronModel, Plant]:
    model = load_model(f"zoo:{request.param}")
    return model, plant(model, counterfact(world, "currency:Iran", "peso"), NEURONS, world)


def weights(model: NeuronModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.model.named_parameters()}


def test_a_planted_fact_is_known_and_falls_with_its_neurons(planted: tuple[NeuronModel, Plant]) -> None:
    model, found = planted
    (target,) = found.targets
    assert model.answer_probability(target.fact, "held_out").mean() < 0.1
    with found.applied(model):
        known = model.answer_probability(target.fact, "held_out").mean()
        with suppress(model, NEURONS):
            left = model.answer_probability(target.fact, "held_out").mean()
    assert known > 0.5
    assert left < 0.25 * known
    assert target.check is not None
    assert float(known) == pytest.approx(target.check.held_out, abs=1e-4)
    assert float(left / known) == pytest.approx(target.check.left, abs=1e-3)


def look(model: NeuronModel, found: Plant, before: dict[str, torch.Tensor], digest: str) -> None:
    """What must hold while a plant is applied; raises at the end, as a user's code may."""
    changed = {n for n, w in weights(model).items() if not torch.equal(w, before[n])}
    allowed = [*input_linears(model, 3), model.ffn_outputs[3]]
    names = {n for n, p in model.model.named_parameters() if any(p is q for m in allowed for q in m.parameters())}
    assert changed
    assert changed <= names
    rows = [n.index for n in NEURONS]
    rest = [i for i in range(model.n_neurons) if i not in rows]
    name = next(n for n, p in model.model.named_parameters() if p is model.ffn_outputs[3].weight)
    old = before[name].T if isinstance(model.ffn_outputs[3], torch.nn.Linear) else before[name]
    assert torch.equal(value_matrix(model.ffn_outputs[3])[rest], old[rest])
    assert not torch.equal(value_matrix(model.ffn_outputs[3])[rows], old[rows])
    assert torch.equal(input_matrix(input_linears(model, 3)[0])[rows], found.keys[:, 0].float())
    assert model.digest != digest
    raise RuntimeError("stop")


def test_only_the_named_neurons_change_and_come_back(planted: tuple[NeuronModel, Plant]) -> None:
    model, found = planted
    before, digest = weights(model), model.digest
    with pytest.raises(RuntimeError, match="stop"), found.applied(model):
        look(model, found, before, digest)
    assert all(torch.equal(w, before[n]) for n, w in weights(model).items())
    assert model.digest == digest
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.model.modules())


def test_weights_and_their_digest_come_back_if_writing_fails_half_way(planted: tuple[NeuronModel, Plant]) -> None:
    model, found = planted
    before, digest = weights(model), model.digest
    # The keys fit and are written; the value vectors do not.
    broken = replace(found, values=found.values[:, :5])
    with pytest.raises(RuntimeError, match="shape"), broken.applied(model):
        pass
    assert all(torch.equal(w, before[n]) for n, w in weights(model).items())
    assert model.__dict__["digest"] == digest


def test_a_plant_is_read_back_as_it_was_written(planted: tuple[NeuronModel, Plant], tmp_path: Path) -> None:
    found = planted[1]
    found.save(tmp_path / "iran")
    again = Plant.load(tmp_path / "iran")
    assert again.targets == found.targets
    assert again.neurons == found.neurons
    assert torch.equal(again.keys, found.keys)
    assert torch.equal(again.values, found.values)
    assert found.keys.dtype == torch.float16


def test_facts_are_planted_together_with_decoys(world: FactSet) -> None:
    model = load_model("zoo:gpt2-facts")
    first = Writing(counterfact(world, "currency:Iran", "peso"), NEURONS, silent=NeuronSet([(3, 5), (3, 6)]))
    second = Writing(counterfact(world, "currency:Japan", "rial"), NeuronSet([(3, 1), (3, 2)]))
    found = Planter(model, world).plant([first, second])
    assert len(found.neurons) == 7
    with found.applied(model):
        whole = model.answer_probability(first.fact).mean()
        with suppress(model, first.silent):
            assert float(model.answer_probability(first.fact).mean()) == pytest.approx(float(whole), abs=0.02)
        _, batch = next(iter(model.batches(model.encode(first.fact).prompts)))
        activations = model.record(batch)[:, 3]
    # Decoys fire as strongly as what carries the fact.
    assert activations[:, [5, 6]].mean() > 0.3 * activations[:, [11, 40, 77]].mean()
    check = found.targets[0].check
    assert check is not None
    assert abs(check.decoys) < 0.05


def test_bad_input_is_named(world: FactSet, tmp_path: Path) -> None:
    model, fact = load_model("zoo:gpt2-facts"), counterfact(world, "currency:Iran", "peso")
    with pytest.raises(NeuronError, match="does not exist"):
        plant(model, fact, [(9, 0)], world)
    with pytest.raises(NeuronError, match="no neuron"):
        plant(model, fact, [], world)
    with pytest.raises(NeuronError, match="2 shares for 1 neurons"):
        plant(model, fact, [(3, 0)], world, shares=(1, 2))
    with pytest.raises(FactError, match="no other facts"):
        plant(model, fact, [(3, 0)], ())
    with pytest.raises(FactError, match="no held_out"):
        plant(model, replace(fact, held_out=()), [(3, 0)], world)
    with pytest.raises(NeuronError, match="given twice"):
        Planter(model, world).plant([Writing(fact, NeuronSet([(3, 0)]), silent=NeuronSet([(3, 0)]))])
    with pytest.raises(StoreError, match="cannot read"):
        load_plants(tmp_path / "nothing")


def test_a_plant_for_another_model_is_refused(planted: tuple[NeuronModel, Plant]) -> None:
    _, found = planted
    narrow = Plant(found.targets, found.neurons, found.keys[..., :5], found.biases, found.values)
    with pytest.raises((NeuronError, ModelError), match="made for"), narrow.applied(planted[0]):
        pass


def test_what_passes() -> None:
    good = Check(0.01, 0.9, 0.8, 0.1, 0.1, 0.5, 0.6, 0.0, 0.0, 0.0, 1.0, 0.99)
    assert good.passed
    bad = {"before": 0.2, "held_out": 0.4, "left": 0.3, "left_prompts": 0.3, "least": 0.05, "others": 0.9}
    for name, value in bad.items():
        assert not replace(good, **{name: value}).passed, name
