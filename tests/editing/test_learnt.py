"""Vectors learnt by gradient against steps of Adam by hand on the weights themselves, and within their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from architecture_cases import FACT, loaded, prompts_of
from editing_world import NEURONS, edit_of
from kn_attrib import FactSet, NeuronModel, NeuronSet
from kn_attrib.editing import (
    Edit,
    Editor,
    FineTune,
    FineTuneConstrained,
    KnowledgeNeurons,
    Optimised,
    make_editor,
)
from kn_attrib.editing.edit import wanted_queries
from kn_attrib.errors import ConfigError, EditError, NeuronError
from kn_attrib.interventions.value_vectors import values_of
from kn_attrib.models.answer_loss import answer_loss
from kn_attrib.models.neuron_model import digest_of

TEXT = ("the capital of France is [Y].",)


def loss_by_hand(tiny: NeuronModel, words: list[str]) -> Tensor:
    """Mean −log p of some words behind the text (masked: in its masks), of the weights as they are."""
    model: Any = tiny.model
    if tiny.kind == "masked":
        ids = tiny.tokenizer("the capital of France is" + " [MASK]" * len(words) + " .")["input_ids"]
        first = ids.index(tiny.tokenizer.mask_token_id)
        gold = [tiny.tokenizer.get_vocab()[word] for word in words]
    else:
        gold = [tiny.tokenizer.get_vocab()[f"Ġ{word}"] for word in words]
        ids = [*tiny.tokenizer("the capital of France is")["input_ids"], *gold[:-1]]
        first = len(ids) - len(gold)
    logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -torch.stack([logprobs[first + at, token] for at, token in enumerate(gold)]).mean()


@pytest.mark.parametrize("words", [["Rome"], ["Rome", "Berlin"]])
@pytest.mark.parametrize(("limit", "rate", "stop"), [(None, 0.01, 0.0), (0.015, 0.01, 0.0), (None, 0.01, 1.0)])
def test_fine_tuning_is_adam_on_the_matrix(
    words: list[str], limit: float | None, rate: float, stop: float, tiny: NeuronModel, facts: FactSet
) -> None:
    editor = FineTune(1, steps=6, rate=rate, limit=limit, stop=stop)
    weight: Any = tiny.ffn_outputs[1].weight
    clean, digest = weight.detach().clone(), tiny.digest
    with editor.apply(tiny, Edit(facts[0], " ".join(words), TEXT)) as applied:
        found = weight.detach().clone()
        assert found.ne(clean).any()
    assert digest_of(tiny.model) == digest
    weight.requires_grad_()
    optimizer = torch.optim.Adam([weight], rate)
    for _ in range(6):
        loss = loss_by_hand(tiny, words)
        if float(loss.detach()) < stop:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if limit is not None:
            with torch.no_grad():
                weight.copy_(weight.clamp(clean - limit, clean + limit))
    torch.testing.assert_close(found, weight.detach(), rtol=1e-7, atol=1e-9)
    if limit is not None:
        assert found.sub(clean).abs().max() == pytest.approx(limit)
    assert applied.delta.norm == pytest.approx(float((found - clean).norm()))


def test_it_stops_when_the_target_is_answered(tiny: NeuronModel, facts: FactSet) -> None:
    edit = edit_of(facts)
    long = FineTune(1, steps=60, rate=0.02, stop=0.5)
    with long.apply(tiny, edit):
        assert answer_loss(tiny, wanted_queries(tiny, edit)) < 0.5
    shorter = FineTune(1, steps=59, rate=0.02, stop=0.5)
    assert long.delta(tiny, edit).same(shorter.delta(tiny, edit))
    assert FineTune(1, stop=100.0).delta(tiny, edit).changes == ()


def test_optimised_vectors_do_better_than_the_formula(tiny: NeuronModel, facts: FactSet) -> None:
    edit = edit_of(facts)
    queries = wanted_queries(tiny, edit)
    clean, losses = answer_loss(tiny, queries), []
    for editor in (KnowledgeNeurons(neurons=NEURONS), Optimised(neurons=NEURONS, steps=100)):
        with editor.apply(tiny, edit):
            losses.append(answer_loss(tiny, queries))
    assert losses[1] < min(clean, losses[0])


def test_optimised_vectors_are_those_of_adam_in_lengths(tiny: NeuronModel, facts: FactSet) -> None:
    found = Optimised(neurons=NeuronSet([(1, 5)]), steps=1, rate=0.5).delta(tiny, edit_of(facts)).changes[0].added()
    length = tiny.value_vectors(1)[5].norm()
    # The first step of Adam is its rate in each number, whatever the gradient's size, but for its ε.
    torch.testing.assert_close(found.abs(), (0.5 * length).expand(1, 32), rtol=1e-3, atol=0)


def test_optimised_vectors_stay_short(tiny: NeuronModel, facts: FactSet) -> None:
    delta = Optimised(neurons=NEURONS, steps=20, rate=0.5, limit=1.5).delta(tiny, edit_of(facts))
    added = torch.cat([change.added() for change in delta.changes])
    lengths = values_of(tiny, NEURONS).norm(dim=-1)
    assert (added.norm(dim=-1) <= 1.5 * lengths * (1 + 1e-9)).all()
    assert (added.norm(dim=-1) > 1.49 * lengths).any()
    assert Optimised(neurons=NeuronSet()).delta(tiny, edit_of(facts)).changes == ()


FAMILIES = ["gpt2", "llama", "phi3", "opt", "gemma3_text", "modernbert", "falcon", "t5, gated", "bart"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("editor", [FineTune(2, rate=0.01, steps=5), Optimised(neurons=NEURONS, steps=10)])
def test_families(name: str, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(name)
    queries = tuple(prompts_of(model)[:1])
    for room in ("editor", "fine_tune", "optimised"):
        # Their tokenizers have no words for a text; the tokens are given.
        monkeypatch.setattr(f"kn_attrib.editing.{room}.wanted_queries", lambda *_: queries)
    digest, clean = digest_of(model.model), answer_loss(model, queries)
    with editor.apply(model, Edit(FACT, "b")):
        assert answer_loss(model, queries) < clean
    assert digest_of(model.model) == digest


def test_half_precision(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    tiny, edit = load_tiny("causal", "bfloat16"), edit_of(facts)
    clean, digest = answer_loss(tiny, wanted_queries(tiny, edit)), tiny.digest
    for editor in (FineTune(1, rate=0.01), Optimised(neurons=NEURONS)):
        with editor.apply(tiny, edit):
            assert answer_loss(tiny, wanted_queries(tiny, edit)) < clean
        assert digest_of(tiny.model) == digest


def test_bounds_are_the_published_ones() -> None:
    assert make_editor("fine_tune_constrained(layer=0)") == FineTuneConstrained(0, 25, 5e-4, 5e-4)
    assert make_editor("fine_tune(layer=1)") == FineTune(1, 25, 5e-4, None)


def test_what_is_refused(tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NeuronError, match="layer 7 does not exist"):
        FineTune(7).delta(tiny, edit_of(facts))
    for given in ({"steps": 0}, {"rate": 0.0}, {"limit": -1.0}, {"rate": "fast"}):
        for make in (lambda **kwargs: FineTune(1, **kwargs), Optimised):
            with pytest.raises(ConfigError, match=f"{next(iter(given))} is"):
                make(**given)
    monkeypatch.setattr("kn_attrib.editing.editor.wanted_queries", lambda *_: ())
    with pytest.raises(EditError, match="layers share"):
        FineTune(1).delta(loaded("albert"), Edit(FACT, "b"))
