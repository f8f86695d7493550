"""Corrupted subjects: where the noise is, how large it is, and which other subjects take a subject's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from kn_attrib import Fact, NeuronModel
from kn_attrib.errors import PromptError
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.interventions.corrupted_subject import (
    CORRUPTIONS,
    Corruption,
    only_subject_span,
    subject_deviation,
    with_noisy_subject,
    with_other_subjects,
)


def query(model: NeuronModel, fact: Fact, number: int = 1) -> Prompt:
    return model.encode(fact).prompts[number]


@pytest.mark.parametrize("corruption", CORRUPTIONS[:2])
def test_noise_is_on_the_subject_alone_and_of_the_size_asked_for(
    tiny: NeuronModel, facts: FactSet, corruption: Corruption
) -> None:
    prompt = query(tiny, facts[0])
    start, end = only_subject_span(tiny, prompt)
    assert str(tiny.tokenizer.decode(list(prompt.input_ids[start:end]))).strip() == "France"
    clean = tiny.embed(Batch((prompt,)))
    noise = with_noisy_subject(tiny, prompt, corruption, 0.5, 400, seed=0) - clean
    outside = [token for token in range(noise.shape[1]) if not start <= token < end]
    assert (noise[:, outside] == 0).all()
    own = noise[:, start:end]
    spread = 0.5 if corruption == "gaussian" else 0.5 / 3**0.5
    assert float(own.std()) == pytest.approx(spread, rel=0.02)
    assert float(own.mean()) == pytest.approx(0, abs=0.02)
    assert (float(own.abs().max()) <= 0.5) == (corruption == "uniform")


def test_noise_is_drawn_by_seed_fact_and_text(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    model = load_tiny("causal")

    def noise(prompt: Prompt, seed: int = 0) -> torch.Tensor:
        start, end = only_subject_span(model, prompt)
        clean = model.embed(Batch((prompt,)))
        return (with_noisy_subject(model, prompt, "gaussian", 1.0, 2, seed) - clean)[:, start:end]

    first = query(model, facts[0])
    assert torch.equal(noise(first), noise(first))
    assert torch.allclose(noise(first), noise(replace(first, answer_id=3, token=1)))
    assert not torch.allclose(noise(first), noise(first, seed=1))
    assert not torch.allclose(noise(first), noise(query(model, facts[1])))
    assert not torch.allclose(noise(first), noise(query(model, facts[0], 0)))


def test_the_deviation_is_that_of_the_subjects_embeddings(tiny: NeuronModel, facts: FactSet) -> None:
    prompts = [query(tiny, fact) for fact in facts]
    embedding = tiny.model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    ids = [prompt.input_ids[only_subject_span(tiny, prompt)[0]] for prompt in prompts]
    assert subject_deviation(tiny, prompts) == pytest.approx(float(embedding.weight[ids].detach().std()))


def test_other_subjects_take_the_subjects_place(tiny: NeuronModel, facts: FactSet) -> None:
    prompt = query(tiny, facts[0])
    found = with_other_subjects(tiny, prompt, list(facts), 10, seed=0)
    others = [tiny.embed(Batch((query(tiny, fact),)))[0] for fact in facts[1:]]
    assert len(found) == len(others)
    assert all(any(torch.equal(row, other) for other in others) for row in found)
    assert len(with_other_subjects(tiny, prompt, list(facts), 2, seed=0)) == 2


def test_subjects_of_the_same_answer_or_of_other_lengths_do_not_serve(
    load_tiny: Callable[..., NeuronModel], facts: FactSet
) -> None:
    model = load_tiny("causal")
    prompt = query(model, facts[0])
    same = replace(facts[1], answer=facts[0].answer)
    right_too = replace(facts[1], alternatives=(facts[0].answer,))
    longer = replace(facts[1], subject="Italy Italy")
    for other in (facts[0], same, right_too, longer):
        with pytest.raises(PromptError, match="no other subject of relation 'capital' has another answer and the 1"):
            with_other_subjects(model, prompt, [other], 3, seed=0)


def test_a_subject_that_is_not_there_or_twice_is_refused(tiny: NeuronModel, facts: FactSet) -> None:
    absent = replace(facts[0], prompts=("the capital of Italy is [Y].",))
    with pytest.raises(PromptError, match=r"the subject 'France' of fact '.*' is not in what the model reads"):
        only_subject_span(tiny, query(tiny, absent, 0))
    twice = replace(facts[0], prompts=("in France the capital of France is [Y].",))
    with pytest.raises(PromptError, match="stands 2 times in") as caught:
        only_subject_span(tiny, query(tiny, twice, 0))
    assert caught.value.cause == "subject twice"
