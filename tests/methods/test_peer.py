"""Our numbers against those of the PyPI package knowledge-neurons 0.0.2, on the same model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kn_attrib import NeuronModel, NeuronScores, get_method, load_model, refine, score, suppress
from kn_attrib.facts.facts import FactSet


@pytest.fixture(scope="module")
def pair(make_tiny_bert: Any) -> tuple[NeuronModel, Any]:
    """The same random BERT seen by us and by the peer (which leaves weights trainable)."""
    peer = pytest.importorskip("knowledge_neurons")
    model, tokenizer = make_tiny_bert()
    return load_model((model, tokenizer)), peer.KnowledgeNeurons(model, tokenizer, model_type="bert", device="cpu")


@pytest.fixture(scope="module")
def scored(pair: tuple[NeuronModel, Any], module_facts: FactSet) -> NeuronScores:
    ours, _ = pair
    scores = score(ours, module_facts[0], get_method("integrated_gradients").preset("eleuther"))
    assert len(scores) >= 4
    return scores


def peer_texts(facts: FactSet) -> list[str]:
    return [text.replace("[Y]", "[MASK]") for text in facts[0].prompts]


def test_scores_equal_the_peers(pair: tuple[NeuronModel, Any], scored: NeuronScores, module_facts: FactSet) -> None:
    _, peer = pair
    for row, text in enumerate(peer_texts(module_facts)):
        theirs = peer.get_scores(text, module_facts[0].answer, batch_size=10, steps=20, pbar=False)
        error = (scored.values[row] - theirs).norm() / theirs.norm()
        assert error < 1e-5


def test_refined_neurons_are_the_peers(
    pair: tuple[NeuronModel, Any], scored: NeuronScores, module_facts: FactSet
) -> None:
    _, peer = pair
    theirs = peer.get_refined_neurons(
        peer_texts(module_facts), module_facts[0].answer, p=0.5, coarse_adaptive_threshold=0.3, quiet=True
    )
    ours = refine(scored, preset="eleuther")
    assert len(ours) > 0
    assert {tuple(n) for n in ours} == {tuple(n) for n in theirs}
    assert refine(scored, threshold=0.3, share=0.5, strict=True) == ours


def test_suppression_gives_the_peers_probabilities(
    pair: tuple[NeuronModel, Any], scored: NeuronScores, module_facts: FactSet
) -> None:
    ours, peer = pair
    fact, neurons = module_facts[0], refine(scored, preset="eleuther")
    before = ours.answer_probability(fact)
    with suppress(ours, neurons):
        after = ours.answer_probability(fact)
    assert (before - after).abs().max() > 1e-4
    for row, text in enumerate(peer_texts(module_facts)):
        theirs, _ = peer.suppress_knowledge(text, fact.answer, [list(n) for n in neurons], quiet=True)
        assert after[row].item() == pytest.approx(theirs["after"]["gt_prob"], abs=1e-6)
        assert before[row].item() == pytest.approx(theirs["before"]["gt_prob"], abs=1e-6)


def test_the_peer_left_its_model_as_it_was(pair: tuple[NeuronModel, Any]) -> None:
    ours, _ = pair
    assert all(parameter.requires_grad for parameter in ours.model.parameters())
    assert isinstance(ours.model.training, bool)
    assert torch.isfinite(ours.value_norms()).all()
