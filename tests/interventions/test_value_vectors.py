"""Value vectors written and added: only the named ones change, and they come back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kn_attrib import FactSet, NeuronModel, NeuronSet
from kn_attrib.errors import ModelError, NeuronError
from kn_attrib.interventions.value_vectors import add_values, values_of, write_values
from kn_attrib.models.answer_loss import answer_loss
from kn_attrib.models.neuron_model import all_neurons, digest_of

TRUTH = NeuronSet([(0, 3), (0, 40), (2, 7)])


def state(model: NeuronModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def same(model: NeuronModel, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())


@pytest.mark.parametrize("fails", [False, True])
def test_only_the_named_vectors_change_and_come_back(tiny: NeuronModel, fails: bool) -> None:
    before, digest = state(tiny), tiny.digest
    values = values_of(tiny, TRUTH)
    try:
        with write_values(tiny, TRUTH, values + 1):
            assert tiny.digest != digest
            assert torch.equal(values_of(tiny, TRUTH), values + 1)
            others = all_neurons(tiny) - TRUTH
            assert not same(tiny, before)
            with write_values(tiny, TRUTH, values):
                assert same(tiny, before)
                assert len(others) == 3 * 48 - 3
            if fails:
                raise KeyError("anything")
    except KeyError:
        assert fails
    assert same(tiny, before)
    assert tiny.digest == digest == digest_of(tiny.model)


def test_added_values_are_what_written_ones_give(tiny: NeuronModel, facts: FactSet) -> None:
    prompts = tiny.encode(list(facts)).prompts
    deltas = torch.randn(3, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    clean = answer_loss(tiny, prompts)
    with add_values(tiny, TRUTH, deltas):
        added = answer_loss(tiny, prompts)
    with write_values(tiny, TRUTH, values_of(tiny, TRUTH) + deltas):
        assert answer_loss(tiny, prompts) == pytest.approx(added, rel=1e-9)
    assert added != pytest.approx(clean, rel=1e-3)
    assert answer_loss(tiny, prompts) == clean


def test_shared_weights_are_refused(tiny: NeuronModel) -> None:
    tiny.architecture = replace(tiny.architecture, shared_module=True)
    with pytest.raises(ModelError, match="layers share"), write_values(tiny, TRUTH, values_of(tiny, TRUTH)):
        pass


def test_vectors_of_another_shape_are_refused(tiny: NeuronModel) -> None:
    with pytest.raises(NeuronError, match=r"expected \[3, 32\]"), write_values(tiny, TRUTH, torch.zeros(2, 32)):
        pass
    with pytest.raises(NeuronError, match="does not exist"), write_values(tiny, [(9, 0)], torch.zeros(1, 32)):
        pass
