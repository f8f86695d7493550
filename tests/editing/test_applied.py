"""Edits on a model: every weight comes back bit for bit, whatever happens, and what cannot be undone is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from editing_world import NEURONS, SMALL, edit_of, small
from interrupting import interrupt, operations_of, state_of
from kn_attrib import FactSet, NeuronModel, NeuronSet, load_model
from kn_attrib.editing import (
    AppliedEdit,
    Edit,
    KnowledgeNeurons,
    RandomNeurons,
    RankOne,
    ValueVectors,
    WeightDelta,
    apply_delta,
    list_editors,
)
from kn_attrib.editing.applied import KEPT
from kn_attrib.errors import EditError, NeuronError, StoreError
from kn_attrib.models.neuron_model import digest_of
from unit_views import view_of

every_editor = pytest.mark.parametrize("name", sorted(SMALL))
STAGES = (0.05, 0.3, 0.6, 0.9, 1.0)
"""Shares of an edit's operations after which it is interrupted."""


def test_every_editor_is_tried() -> None:
    assert set(list_editors()) == set(SMALL)


@every_editor
@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_weights_come_back(name: str, error: type[BaseException] | None, tiny: NeuronModel, facts: FactSet) -> None:
    editor, before = small(name, tiny, facts), state_of(tiny)
    digest = tiny.digest
    try:
        with editor.apply(tiny, edit_of(facts)) as applied:
            assert applied.is_active
            assert digest_of(tiny.model) == tiny.digest != digest
            if error is not None:
                raise error
    except (KeyError, KeyboardInterrupt):
        assert error is not None
    assert state_of(tiny) == before
    assert tiny.digest == digest
    assert KEPT not in vars(tiny.model)


@every_editor
def test_an_interrupted_edit_leaves_nothing(name: str, tiny: NeuronModel, facts: FactSet) -> None:
    editor, edit = small(name, tiny, facts), edit_of(facts)

    def call() -> None:
        with editor.apply(tiny, edit):
            tiny.answer_probability(facts[0])

    before = state_of(tiny)
    call()
    total = operations_of(call)
    for number in sorted({max(1, round(share * total)) for share in STAGES}):
        assert interrupt(call, number)
        assert state_of(tiny) == before
        assert KEPT not in vars(tiny.model)


def test_the_applying_itself_may_be_interrupted_anywhere(tiny: NeuronModel, facts: FactSet) -> None:
    delta, before = small("knowledge_neurons", tiny, facts).delta(tiny, edit_of(facts)), state_of(tiny)

    def call() -> None:
        with apply_delta(tiny, delta):
            pass

    call()
    for number in range(1, operations_of(call) + 1):
        assert interrupt(call, number)
        assert state_of(tiny) == before
        assert KEPT not in vars(tiny.model)


@every_editor
def test_the_same_edit_again_is_the_same(name: str, tiny: NeuronModel, facts: FactSet) -> None:
    first, second = (small(name, tiny, facts).delta(tiny, edit_of(facts)) for _ in range(2))
    assert first.same(second)
    assert first.norm > 0
    other = small(name, tiny, facts).delta(tiny, Edit(facts[0], "Berlin"))
    assert not first.same(other)


def test_a_permanent_edit_stays_until_it_is_undone(tiny: NeuronModel, facts: FactSet) -> None:
    before = state_of(tiny)
    editor = KnowledgeNeurons(neurons=NEURONS)
    applied = editor.apply(tiny, edit_of(facts), permanently=True)
    assert applied.is_active
    assert state_of(tiny) != before
    applied.undo()
    assert state_of(tiny) == before
    assert not applied.is_active
    assert not editor.apply(tiny, edit_of(facts)).is_active


def test_an_edit_is_applied_once(tiny: NeuronModel, facts: FactSet) -> None:
    editor, before = KnowledgeNeurons(neurons=NEURONS), state_of(tiny)
    delta = editor.delta(tiny, edit_of(facts))
    with apply_delta(tiny, delta) as applied:
        now = state_of(tiny)
        with pytest.raises(EditError, match="already; undo it"):
            apply_delta(tiny, delta).apply()
        with pytest.raises(EditError, match="already; undo it"):
            applied.apply()
        assert state_of(tiny) == now
    assert state_of(tiny) == before
    with pytest.raises(EditError, match="nothing to undo"):
        applied.undo()


def test_edits_are_undone_in_reverse_order(tiny: NeuronModel, facts: FactSet) -> None:
    before, edit = state_of(tiny), edit_of(facts)
    editors = (KnowledgeNeurons(neurons=NEURONS), RandomNeurons(neurons=NEURONS))
    one, two = (editor.delta(tiny, edit) for editor in editors)
    first, second = (apply_delta(tiny, delta, permanently=True) for delta in (one, two))
    now = state_of(tiny)
    with pytest.raises(EditError, match="came after the edit 'capital:France' → 'Rome' by knowledge_neurons"):
        first.undo()
    assert state_of(tiny) == now
    second.undo()
    first.undo()
    assert state_of(tiny) == before


def test_edits_made_apart_add_up(tiny: NeuronModel, facts: FactSet) -> None:
    one = KnowledgeNeurons(neurons=NEURONS).delta(tiny, edit_of(facts))
    two = KnowledgeNeurons(neurons=NEURONS).delta(tiny, Edit(facts[2], "Madrid"))
    clean = tiny.value_vectors(0).clone()
    with apply_delta(tiny, one):
        added = tiny.value_vectors(0) - clean
        on_top = KnowledgeNeurons(neurons=NEURONS).delta(tiny, Edit(facts[2], "Madrid"))
        with apply_delta(tiny, two):
            both = tiny.value_vectors(0) - clean
        # Lengths are scaled by the vectors as they are: the edit made on top is another one.
        assert not on_top.same(two)
        with apply_delta(tiny, on_top):
            assert not torch.equal(tiny.value_vectors(0) - clean, both)
    with apply_delta(tiny, two):
        torch.testing.assert_close(both, added + tiny.value_vectors(0) - clean)


def test_a_delta_of_other_weights_is_refused(tiny: NeuronModel, facts: FactSet) -> None:
    delta = KnowledgeNeurons(neurons=NEURONS).delta(tiny, edit_of(facts))
    with torch.no_grad():
        tiny.value_vectors(0)[0, 0] += 1
    del tiny.digest
    with pytest.raises(EditError, match="made for weights with digest"), apply_delta(tiny, delta):
        pass


APPLY = """
import sys
from kn_attrib import load_model
from kn_attrib.editing import WeightDelta, apply_delta
from kn_attrib.models.neuron_model import digest_of

model = load_model(sys.argv[1], dtype="float32")
print(digest_of(model.model))
with apply_delta(model, WeightDelta.load(sys.argv[2])):
    print(digest_of(model.model))
print(digest_of(model.model))
"""


@every_editor
def test_a_saved_edit_in_a_new_process(name: str, saved_bert: Path, facts: FactSet, tmp_path: Path) -> None:
    model = load_model(str(saved_bert), dtype="float32")
    delta = small(name, model, facts).delta(model, edit_of(facts))
    delta.save(tmp_path / "edit.safetensors")
    with apply_delta(model, delta):
        edited = model.digest
    command = [sys.executable, "-c", APPLY, str(saved_bert), str(tmp_path / "edit.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [model.digest, edited, model.digest]
    assert edited != model.digest
    assert WeightDelta.load(tmp_path / "edit.safetensors").about == delta.about
    assert delta.about["target"] == "Rome"


def test_half_precision_comes_back_and_is_rounded_once(facts: FactSet, load_tiny: Callable[..., NeuronModel]) -> None:
    tiny = load_tiny("causal", "bfloat16")
    delta, before = KnowledgeNeurons(neurons=NEURONS).delta(tiny, edit_of(facts)), tiny.value_vectors(2).clone()
    digest = tiny.digest
    with apply_delta(tiny, delta):
        (change,) = (change for change in delta.changes if change.layer == 2)
        expected = (before[7].float() + change.added()[0]).bfloat16()
        assert torch.equal(tiny.value_vectors(2)[7], expected)
    assert digest_of(tiny.model) == digest


def test_no_neurons_change_nothing(tiny: NeuronModel, facts: FactSet, tmp_path: Path) -> None:
    delta = KnowledgeNeurons(neurons=NeuronSet()).delta(tiny, edit_of(facts))
    delta.save(tmp_path / "none.safetensors")
    again = WeightDelta.load(tmp_path / "none.safetensors")
    assert again.same(delta)
    assert (again.norm, again.size) == (0, 0)
    with apply_delta(tiny, again):
        assert digest_of(tiny.model) == again.model_digest


def test_tied_weights_are_refused(tiny: NeuronModel, facts: FactSet) -> None:
    editor = KnowledgeNeurons(neurons=NEURONS)
    head = tiny.model.other = nn.Module()
    head.register_parameter("weight", tiny.ffn_outputs[2].weight)  # type: ignore[arg-type]
    with pytest.raises(EditError, match=r"the output matrix of layer 2 is one tensor with others .*other\.weight"):
        editor.delta(tiny, edit_of(facts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (ValueVectors(0, torch.tensor([48]), torch.zeros(1, 32)), "neuron 48"),
        (ValueVectors(0, torch.tensor([1]), torch.zeros(1, 31)), "vectors of 31 numbers"),
        (RankOne(0, torch.zeros(47), torch.zeros(32)), r"shape \[47, 32\]"),
    ],
)
def test_a_delta_that_does_not_fit(change: ValueVectors | RankOne, message: str, tiny: NeuronModel) -> None:
    digest = tiny.digest
    with pytest.raises(EditError, match=message):
        AppliedEdit(tiny, WeightDelta((change,), digest)).apply()
    assert digest_of(tiny.model) == digest


def test_a_view_has_no_weights(tiny: NeuronModel, facts: FactSet) -> None:
    view = view_of(tiny, facts, "pca(k=4)")
    editor = KnowledgeNeurons(neurons=NEURONS)
    with pytest.raises(EditError, match="is a view; weights are those of"):
        editor.delta(view, edit_of(facts))
    with pytest.raises(EditError, match="is a view; weights are those of"):
        apply_delta(view, editor.delta(tiny, edit_of(facts)), permanently=True)


def test_a_layer_that_does_not_exist(tiny: NeuronModel) -> None:
    delta = WeightDelta((RankOne(3, torch.zeros(48), torch.zeros(32)),), tiny.digest)
    with pytest.raises(NeuronError, match="layer 3 does not exist"):
        apply_delta(tiny, delta, permanently=True)


def test_odd_changes_are_refused() -> None:
    ones = torch.ones(2)
    with pytest.raises(EditError, match="not finite"):
        WeightDelta((RankOne(0, ones, ones / 0),), "")
    with pytest.raises(EditError, match="layer 0 is changed twice"):
        WeightDelta((RankOne(0, ones, ones), RankOne(0, ones, ones)), "")
    with pytest.raises(EditError, match="each neuron once"):
        ValueVectors(0, torch.tensor([1, 1]), torch.ones(2, 2))
    with pytest.raises(EditError, match=r"expected \[n\] \(int64\)"):
        ValueVectors(0, ones, torch.ones(2, 2))
    with pytest.raises(EditError, match=r"right is torch\.int64"):
        RankOne(0, ones, torch.tensor([1]))


def test_other_files_are_no_edits(tmp_path: Path) -> None:
    record = '{"model_sha256": "", "about": {}}'
    for tensors, metadata, reason in (
        ({"x": torch.ones(1)}, {}, "says nothing of an edit"),
        ({}, {"kn_attrib_edit": "[]"}, "names no model"),
        ({"x": torch.ones(1)}, {"kn_attrib_edit": record}, "a tensor 'x'"),
        ({"layer.1.left": torch.ones(1)}, {"kn_attrib_edit": record}, "of layer 1 it has left"),
        ({"layer.1.left": torch.ones(1), "layer.1.right": torch.ones(1) / 0}, {"kn_attrib_edit": record}, "not finite"),
    ):
        save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
        with pytest.raises(StoreError, match=reason):
            WeightDelta.load(tmp_path / "a.safetensors")
    with pytest.raises(StoreError, match="cannot read an edit"):
        WeightDelta.load(tmp_path / "missing.safetensors")
