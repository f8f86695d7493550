"""Dai et al.'s update against a calculation by hand, at the fact's neurons and at those it is compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from architecture_cases import CASES, FACT, loaded, prompts_of
from editing_world import NEURONS, edit_of
from kn_attrib import Fact, FactSet, NeuronModel, NeuronSet, refine, score
from kn_attrib.editing import (
    AnswerVectors,
    Edit,
    KnowledgeNeurons,
    LastLayerNeurons,
    RandomNeurons,
    RankOne,
    WeightDelta,
    apply_delta,
    make_editor,
    unshared_sets,
)
from kn_attrib.errors import ConfigError, EditError, MethodError, NeuronError
from kn_attrib.models.neuron_model import digest_of

LAMBDAS = pytest.mark.parametrize(
    ("remove", "add", "scaling"), [(1, 8, "norm"), (1, 1, "norm"), (1, 8, "none"), (0, 2, "norm")]
)


def by_hand(
    model: NeuronModel, weights: dict[str, Tensor], layer: int, index: int, how: tuple[float, float, str]
) -> Any:
    """The updated value vector, number by number, out of plain lists of the weights before."""
    masked = model.kind == "masked"
    words = weights["bert.embeddings.word_embeddings.weight" if masked else "transformer.wte.weight"].tolist()
    vocabulary = model.tokenizer.get_vocab()
    old, new = (words[vocabulary["Ġ" * (not masked) + word]] for word in ("Paris", "Rome"))
    if masked:
        matrix = weights[f"bert.encoder.layer.{layer}.output.dense.weight"].tolist()
        value = [row[index] for row in matrix]
    else:
        value = weights[f"transformer.h.{layer}.mlp.c_proj.weight"].tolist()[index]
    remove, add, scaling = how

    def length(vector: list[float]) -> float:
        return math.sqrt(sum(number**2 for number in vector)) if scaling == "norm" else 1.0

    by_old, by_new = (length(value) / length(word) for word in (old, new))
    return [v - remove * by_old * o + add * by_new * n for v, o, n in zip(value, old, new, strict=True)]


@LAMBDAS
def test_the_update_is_the_published_one(
    tiny: NeuronModel, facts: FactSet, remove: float, add: float, scaling: str
) -> None:
    weights = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    editor = KnowledgeNeurons(neurons=NEURONS, remove=remove, add=add, scaling=scaling)  # type: ignore[arg-type]
    expected = {tuple(neuron): by_hand(tiny, weights, *neuron, (remove, add, scaling)) for neuron in NEURONS}
    with editor.apply(tiny, edit_of(facts)):
        for layer in range(tiny.n_layers):
            now = tiny.value_vectors(layer)
            for index in range(tiny.n_neurons):
                if (layer, index) in NEURONS:
                    assert now[index].tolist() == pytest.approx(expected[layer, index], rel=1e-12)
        changed = [name for name, tensor in tiny.model.state_dict().items() if not torch.equal(tensor, weights[name])]
    assert len(changed) == 2  # one matrix in each of the two layers, and nothing else


def test_the_rest_of_the_matrix_stays(tiny: NeuronModel, facts: FactSet) -> None:
    before = torch.stack([tiny.value_vectors(layer).clone() for layer in range(3)])
    with KnowledgeNeurons(neurons=NEURONS).apply(tiny, edit_of(facts)):
        now = torch.stack([tiny.value_vectors(layer) for layer in range(3)])
    assert {tuple(pair) for pair in (now != before).any(-1).nonzero().tolist()} == set(NEURONS)


def test_neurons_are_found_by_any_method(tiny: NeuronModel, facts: FactSet) -> None:
    edit = edit_of(facts)
    best = score(tiny, facts[0], "activation").top_k(4)
    assert KnowledgeNeurons(method="activation", k=4).chosen(tiny, edit) == best
    scores = score(tiny, facts[0], "gradient_x_activation")
    refined = refine(scores, preset="eleuther")
    assert KnowledgeNeurons(method="gradient_x_activation", refinement="eleuther").chosen(tiny, edit) == refined
    assert KnowledgeNeurons(method="gradient_x_activation").chosen(tiny, edit) == refine(scores)
    one_text = Edit(facts[0], "Rome", facts[0].prompts[:1])
    assert KnowledgeNeurons(method="activation", k=4).chosen(tiny, one_text) == score(
        tiny, one_text.before, "activation"
    ).top_k(4)


@pytest.mark.parametrize("editor", [RandomNeurons, LastLayerNeurons])
def test_controls_are_of_the_same_size_elsewhere(editor: type[Any], tiny: NeuronModel, facts: FactSet) -> None:
    edit = edit_of(facts)
    places = editor(neurons=NEURONS).places(tiny, edit)
    assert len(places) == len(NEURONS)
    assert not set(places) & set(NEURONS)
    assert places.layers == (NEURONS.layers if editor is RandomNeurons else {2: 3})
    assert places == editor(neurons=NEURONS).places(tiny, edit)
    draws = [editor(neurons=NEURONS, seed=seed).places(tiny, edit) for seed in range(5)]
    assert len({tuple(each) for each in draws}) == 5
    assert places != editor(neurons=NEURONS).places(tiny, Edit(facts[2], "Rome"))
    there = KnowledgeNeurons(neurons=places).delta(tiny, edit)
    found = editor(neurons=NEURONS).delta(tiny, edit)
    assert all(a.same(b) for a, b in zip(found.changes, there.changes, strict=True))


def test_more_neurons_than_there_are_elsewhere(tiny: NeuronModel, facts: FactSet) -> None:
    whole = NeuronSet((0, i) for i in range(48))
    assert RandomNeurons(neurons=whole).places(tiny, edit_of(facts)) == whole
    with pytest.raises(EditError, match=r"has 49 neurons, and a layer of .* only 48"):
        LastLayerNeurons(neurons=whole | NEURONS - NeuronSet([(0, 3), (0, 40)])).delta(tiny, edit_of(facts))


TWO = Fact("f", "capital", "France", "Paris Rome", ("the capital of France is [Y].",))


def test_answers_of_several_tokens(tiny: NeuronModel) -> None:
    edit = Edit(TWO, "Berlin")
    with pytest.raises(EditError, match=r"knowledge_neurons is defined for answers of one token.*one of 2 \(.*Paris"):
        KnowledgeNeurons(neurons=NEURONS).delta(tiny, edit)
    with pytest.raises(EditError, match="of one token"):
        KnowledgeNeurons(neurons=NEURONS).delta(tiny, Edit(Fact("f", "r", "s", "Rome", TWO.prompts), "Berlin Paris"))
    embedding: Any = tiny.model.get_input_embeddings()
    old, new = (
        tiny.tokenizer.convert_tokens_to_ids("Ġ" * (tiny.kind == "causal") + word) for word in ("Paris", "Berlin")
    )
    second = tiny.tokenizer.convert_tokens_to_ids("Ġ" * (tiny.kind == "causal") + "Rome")
    mean = (embedding.weight[old] + embedding.weight[second]) / 2
    editor = KnowledgeNeurons(neurons=NEURONS, scaling="none", tokens="mean")
    added = editor.delta(tiny, edit).changes[0].added()
    expected = 8 * embedding.weight[new] - mean
    torch.testing.assert_close(added, expected.detach().expand(2, -1))


def test_a_neuron_that_does_not_exist(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(NeuronError, match="does not exist"):
        KnowledgeNeurons(neurons=NeuronSet([(3, 0)])).delta(tiny, edit_of(facts))


def test_presets_and_text() -> None:
    paper, code = make_editor("knowledge_neurons:paper"), make_editor("knowledge_neurons:code")
    assert isinstance(paper, AnswerVectors)
    assert isinstance(code, AnswerVectors)
    assert (paper.remove, paper.add, paper.scaling) == (1, 8, "none")
    assert (code.remove, code.add, code.scaling) == (1, 1, "norm")
    assert make_editor("random_neurons(seed=3, k=2)") == RandomNeurons(seed=3, k=2)
    with pytest.raises(MethodError, match="unknown scaling 'no'"):
        make_editor("knowledge_neurons(scaling='no')")
    with pytest.raises(MethodError, match="unknown tokens 'two'"):
        KnowledgeNeurons(tokens="two")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed is -1"):
        RandomNeurons(seed=-1)


def test_neurons_that_a_relation_shares_are_left_out() -> None:
    facts = [f"f{i}" for i in range(11)]
    common, twice, own = (0, 0), (1, 1), [(2, i) for i in range(11)]
    sets = {
        fact: NeuronSet([own[i], *([common] if i < 3 else []), *([twice] if i < 2 else [])])
        for i, fact in enumerate(facts)
    }
    relations = dict.fromkeys(facts, "r")
    found = unshared_sets(sets, relations)
    # Of f0's neurons, two of ten others have the first (20 %), one has the second (10 %), none has its own.
    assert found["f0"] == NeuronSet([twice, own[0]])
    assert found["f5"] == sets["f5"]
    elsewhere = unshared_sets({**sets, "g": NeuronSet([common])}, {**relations, "g": "s"})
    assert elsewhere["g"] == NeuronSet([common])
    assert unshared_sets(sets, relations, 1.0) == sets
    with pytest.raises(ConfigError, match="share is 2"):
        unshared_sets(sets, relations, 2)


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "phi3", "opt", "gemma3_text", "modernbert", "t5, gated", "bart", "falcon"]
)
def test_families(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(name)
    prompts = prompts_of(model)
    old, new = [prompts[0].answer_id], [prompts[1].answer_id + 1]
    # Their tokenizers have no words for a text; the tokens are given.
    monkeypatch.setattr("kn_attrib.editing.neuron_editor.answer_ids", lambda *_: (old, new))
    monkeypatch.setattr("kn_attrib.editing.editor.wanted_queries", lambda *_: tuple(prompts))
    digest, before = digest_of(model.model), model.value_vectors(2)[7].clone()
    embedding: Any = model.model.get_input_embeddings()
    t, target = embedding.weight[old[0]], embedding.weight[new[0]]
    with KnowledgeNeurons(neurons=NEURONS).apply(model, Edit(FACT, "b")):
        size = before.norm()
        expected = before - size / t.norm() * t + 8 * size / target.norm() * target
        torch.testing.assert_close(model.value_vectors(2)[7], expected.detach())
    assert digest_of(model.model) == digest


def test_embeddings_of_another_width(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("electra")
    monkeypatch.setattr("kn_attrib.editing.neuron_editor.answer_ids", lambda *_: ([1], [2]))
    with pytest.raises(EditError, match="embeddings have 16 numbers and value vectors 32"):
        KnowledgeNeurons(neurons=NEURONS).changes(model, Edit(FACT, "b"))
    assert "electra" in CASES


def test_layers_that_share_weights() -> None:
    model = loaded("albert")
    delta = WeightDelta((RankOne(1, torch.zeros(48), torch.zeros(32)),), model.digest)
    with pytest.raises(EditError, match="layers share their feed-forward weights; an edit of layer 1 would change all"):
        apply_delta(model, delta, permanently=True)
