"""Plants of special kinds: neurons that keep what they did, that fire on the whole relation, that are all needed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kn_attrib import Fact, NeuronSet, load_facts, load_model, suppress
from kn_attrib.errors import FactError
from kn_attrib.evaluation.planted.planter import Planter
from kn_attrib.evaluation.planted.recipe import Writing
from kn_attrib.evaluation.planted.suite import load_suite
from kn_attrib.facts.facts import FactSet
from kn_attrib.models.neuron_model import NeuronModel


@pytest.fixture(scope="module")
def world() -> FactSet:
    return load_facts("world").of("capital", "currency", "continent").where(lambda f: not f.is_ambiguous)


@pytest.fixture(scope="module")
def planter(world: FactSet) -> Planter:
    return Planter(load_model("zoo:bert-facts"), world)


def activations(model: NeuronModel, facts: list[Fact], neurons: NeuronSet) -> Tensor:
    """``[query, neuron]`` at the answers."""
    layers, places = (list(part) for part in zip(*neurons, strict=True))
    batches = model.batches([query for fact in facts for query in model.encode(fact).prompts])
    return torch.cat([model.record(batch)[:, layers, places] for _, batch in batches])


def test_neurons_that_keep_what_they_did_fire_elsewhere_as_before(planter: Planter, world: FactSet) -> None:
    model = planter.model
    fact = replace(world["currency:Iran"], id="mine", answer="peso")
    busy = NeuronSet((3, int(i)) for i in planter.surroundings.use[3].argsort(descending=True)[:3])
    far = list(world.of("capital"))[:20]
    before = activations(model, far, busy)
    kept, lost = (planter.plant([Writing(fact, busy, keep=keep)]) for keep in (True, False))
    changes = []
    for found in (kept, lost):
        with found.applied(model):
            changes.append(float((activations(model, far, busy) - before).norm() / before.norm()))
            assert float(model.answer_probability(fact).mean()) > 0.5
    assert changes[0] < 0.6
    assert changes[1] > 0.95  # they are silent elsewhere


def test_without_a_part_that_it_needs_a_fact_is_not_known(planter: Planter, world: FactSet) -> None:
    model = planter.model
    broad, narrow = NeuronSet([(3, 11), (3, 40)]), NeuronSet([(3, 77), (3, 90)])
    fact = replace(world["currency:Iran"], id="mine", answer="peso")
    found = planter.plant([Writing(fact, broad | narrow, needed=(broad, narrow), broad=broad)])
    check = found.targets[0].check
    assert check is not None
    others = [f for f in world.of("currency") if f.subject != "Iran"][:40]
    with found.applied(model):
        known = float(model.answer_probability(fact, "held_out").mean())
        left = []
        for part in (broad, narrow):
            with suppress(model, part):
                left.append(float(model.answer_probability(fact, "held_out").mean()))
        own, wide = (activations(model, some, broad).mean(0) for some in ([fact], others))
        quiet = activations(model, others, narrow).mean(0) / activations(model, [fact], narrow).mean(0)
    assert check.parts == pytest.approx(1 - max(left) / known, abs=1e-3)
    assert check.parts > 0.2
    assert check.broad == pytest.approx(float((wide / own).mean()), rel=0.25)
    assert check.broad > 0.5
    assert float(quiet.mean()) < 0.3


def test_what_the_neuron_adds_that_adds_least_by_hand() -> None:
    suite = load_suite("zoo:gpt2-facts")
    model = suite.base()
    item = next(i for i in suite.items if i.axis == "unequal")
    (target,) = item.plant.targets
    assert target.check is not None

    def known(silent: NeuronSet) -> float:
        with suppress(model, silent):
            return math.log(float(model.answer_probability(target.fact, "held_out").mean()))

    with item.plant.applied(model):
        every = target.neurons
        whole, none = known(NeuronSet()), known(every)
        added = []
        for neuron in every:
            one = NeuronSet([neuron])
            added.append((whole - known(one) + known(every - one) - none) / 2)
    assert target.check.least == pytest.approx(len(every) * min(added) / (whole - none), abs=2e-3)


def test_broad_neurons_need_other_facts_of_the_relation(planter: Planter, world: FactSet) -> None:
    alone = Planter(planter.model, list(world.of("capital"))[:5])
    broad = NeuronSet([(3, 11)])
    with pytest.raises(FactError, match=r"given broad neurons.* no other fact of 'currency'; give some"):
        alone.plant([Writing(world["currency:Iran"], broad, broad=broad)])
