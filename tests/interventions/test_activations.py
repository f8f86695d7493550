"""Interventions against hand-made hooks, and that they are always undone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kn_attrib import NeuronModel, NeuronSet, amplify, set_activation, suppress
from kn_attrib.errors import ConfigError, NeuronError, PromptError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch
from kn_attrib.interventions.activations import ablate_layers, scale_rows
from kn_attrib.models.neuron_model import all_neurons

NEURONS = NeuronSet([(0, 3), (0, 17), (2, 5)])


def first_batch(model: NeuronModel, facts: FactSet) -> Batch:
    return next(iter(model.batches(model.encode(facts).prompts)))[1]


def by_hand(model: NeuronModel, batch: Batch, change: Callable[[Tensor, int, int], None]) -> Tensor:
    """log p(answer) with ``change(vectors [token, neuron], layer, position)`` made in place, prompt by prompt."""
    found = []
    for row, position in enumerate(batch.positions.tolist()):

        def hook(layer: int, position: int = position) -> Callable[..., tuple[Tensor]]:
            def edit(_: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
                vectors = inputs[0].clone()
                change(vectors[0], layer, position)
                return (vectors,)

            return edit

        handles = [site.register_forward_pre_hook(hook(layer)) for layer, site in enumerate(model.ffn_outputs)]
        with torch.no_grad():
            logits = model.model(batch.input_ids[row : row + 1]).logits[0, position]
        for handle in handles:
            handle.remove()
        found.append(logits.log_softmax(-1)[batch.answers[row]])
    return torch.stack(found)


def scale(factor: float, everywhere: bool = False) -> Callable[[Tensor, int, int], None]:
    def change(vectors: Tensor, layer: int, position: int) -> None:
        for neuron in NEURONS:
            if neuron.layer == layer:
                vectors[slice(None) if everywhere else position, neuron.index] *= factor

    return change


@pytest.mark.parametrize("factor", [0.0, 2.0, 3.5])
@pytest.mark.parametrize("positions", ["answer", "all"])
def test_amplify_equals_hooks_by_hand(tiny: NeuronModel, facts: FactSet, factor: float, positions: str) -> None:
    batch = first_batch(tiny, facts)
    expected = by_hand(tiny, batch, scale(factor, positions == "all"))
    with amplify(tiny, NEURONS, factor, positions=positions):  # type: ignore[arg-type]
        found = tiny.answers(batch).logprob
    assert torch.allclose(found, expected, atol=1e-12)
    assert not torch.allclose(found, tiny.answers(batch).logprob, atol=1e-6)


def test_suppress_is_amplify_by_zero(tiny: NeuronModel, facts: FactSet) -> None:
    with suppress(tiny, NEURONS):
        suppressed = tiny.answer_probability(facts[0])
        assert (tiny.record(first_batch(tiny, facts))[:, 0, [3, 17]] == 0).all()
    with amplify(tiny, [(0, 3), (0, 17), (2, 5)], 0.0):
        assert torch.equal(tiny.answer_probability(facts[0]), suppressed)


def test_set_activation_with_one_number_and_with_one_each(tiny: NeuronModel, facts: FactSet) -> None:
    batch = first_batch(tiny, facts)
    for value in (0.9, torch.tensor([0.1, -2.0, 3.0], dtype=tiny.dtype)):
        values = torch.as_tensor(value, dtype=tiny.dtype).expand(3).tolist()

        def change(vectors: Tensor, layer: int, position: int, values: list[float] = values) -> None:
            for neuron, each in zip(NEURONS, values, strict=True):
                if neuron.layer == layer:
                    vectors[position, neuron.index] = each

        with set_activation(tiny, NEURONS, value):
            found = tiny.answers(batch).logprob
        assert torch.allclose(found, by_hand(tiny, batch, change), atol=1e-12)


def test_rows_are_scaled_each_with_its_own_set(tiny: NeuronModel, facts: FactSet) -> None:
    batch = first_batch(tiny, facts)
    sets = [NeuronSet(), NEURONS, NeuronSet([(1, 1)]), NEURONS][: len(batch)]
    with scale_rows(tiny, sets, 0.0):
        together = tiny.answers(batch).logprob
    for row, neurons in enumerate(sets):
        with suppress(tiny, neurons):
            assert torch.allclose(tiny.answers(batch).logprob[row], together[row], atol=1e-12)


def test_ablating_layers_is_suppressing_all_their_neurons(tiny: NeuronModel, facts: FactSet) -> None:
    with ablate_layers(tiny):
        everything = tiny.answer_probability(facts[0])
    with suppress(tiny, all_neurons(tiny)):
        assert torch.allclose(tiny.answer_probability(facts[0]), everything, atol=1e-12)
    with ablate_layers(tiny, [1]):
        one = tiny.answer_probability(facts[0])
    with suppress(tiny, [(1, i) for i in range(tiny.n_neurons)]):
        assert torch.allclose(tiny.answer_probability(facts[0]), one, atol=1e-12)


def test_interventions_nest(tiny: NeuronModel, facts: FactSet) -> None:
    with amplify(tiny, NEURONS, 2.0), amplify(tiny, NEURONS, 0.5):
        nested = tiny.answer_probability(facts[0])
    assert torch.allclose(nested, tiny.answer_probability(facts[0]), atol=1e-12)


def test_zeroing_a_neuron_removes_exactly_its_value_vector(tiny: NeuronModel, facts: FactSet) -> None:
    batch = first_batch(tiny, facts)
    activation = tiny.record(batch)[:, 1, 7]
    outputs = []
    handle = tiny.ffn_outputs[1].register_forward_hook(lambda *args: outputs.append(args[2]))
    tiny.answers(batch)
    with suppress(tiny, [(1, 7)]):
        tiny.answers(batch)
    handle.remove()
    rows = torch.arange(len(batch))
    removed = (outputs[0] - outputs[1])[rows, batch.positions]
    assert torch.allclose(removed, activation[:, None] * tiny.value_vectors(1)[7], atol=1e-12)


def test_undone_after_an_exception(tiny: NeuronModel, facts: FactSet) -> None:
    before = tiny.answer_probability(facts[0])
    with pytest.raises(RuntimeError, match="on purpose"), suppress(tiny, NEURONS):
        raise RuntimeError("on purpose")
    assert torch.equal(tiny.answer_probability(facts[0]), before)
    assert not any(site._forward_pre_hooks for site in tiny.ffn_outputs)


def test_the_bare_model_has_no_answer_position(tiny: NeuronModel, facts: FactSet) -> None:
    batch = first_batch(tiny, facts)
    with suppress(tiny, NEURONS), pytest.raises(PromptError, match="needs a run through NeuronModel"):
        tiny.model(batch.input_ids)
    with suppress(tiny, NEURONS, positions="all"):
        assert tiny.model(batch.input_ids).logits.isfinite().all()


def test_bad_neurons_values_and_positions_are_refused(tiny: NeuronModel) -> None:
    with pytest.raises(NeuronError, match=r"layer=9.*3 layers × 48 neurons"), suppress(tiny, [(9, 0)]):
        pass
    with pytest.raises(NeuronError, match=r"shape \[2\]; expected one number or \[3\]"):
        set_activation(tiny, NEURONS, torch.zeros(2)).__enter__()
    with pytest.raises(ConfigError, match="positions is 'last'"):
        suppress(tiny, NEURONS, positions="last").__enter__()  # type: ignore[arg-type]
