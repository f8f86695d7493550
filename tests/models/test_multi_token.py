"""Answers of several tokens, against computations written by hand on the bare Hugging Face model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from kn_attrib import Fact, FactSet, NeuronModel, NeuronScores, compare, list_methods, load_model, score, suppress
from kn_attrib.errors import NeuronError
from kn_attrib.evaluation.measure.known_facts import select_facts
from kn_attrib.evaluation.measure.outcomes import Evaluator, Job
from kn_attrib.facts.encoding import CONVENTIONS
from kn_attrib.facts.prompts import Prompt, by_text, texts_of
from kn_attrib.methods import IntegratedGradients
from kn_attrib.neurons import NeuronSet
from kn_attrib.scoring.neuron_scores import stack_scores

Tokenizers = dict[str, PreTrainedTokenizerFast]
FACT = Fact(
    "capital:France", "capital", "France", "Rome Paris Berlin", ("the capital of France is [Y].", "France lies in [Y]"),
    ("the city of France is [Y].",),
)  # fmt: skip
FAMILIES = ("bert", "gpt2", "llama", "t5", "t5 without sentinels", "bart", "chat")

# Encoder-decoders are run on the plain path, which is said each time.
pytestmark = pytest.mark.filterwarnings("ignore::kn_attrib.forward.guards.PlainPathWarning")


def llama(tokenizers: Tokenizers) -> Any:
    config = LlamaConfig(
        vocab_size=len(tokenizers["causal"]), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizers["causal"]


def chat(tokenizers: Tokenizers) -> Any:
    model, tokenizer = llama(tokenizers)
    tokenizer.chat_template = "city {{ messages[0]['content'] }} lies "
    return model, tokenizer


def t5(tokenizers: Tokenizers, sentinels: bool = True) -> Any:
    tokenizer = copy.deepcopy(tokenizers["masked" if sentinels else "causal"])
    if sentinels:
        tokenizer.add_tokens(["<extra_id_0>"], special_tokens=True)
    config = T5Config(  # type: ignore[call-arg]
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5ForConditionalGeneration(config), tokenizer


def bart(tokenizers: Tokenizers) -> Any:
    config = BartConfig(
        vocab_size=len(tokenizers["masked"]), d_model=32, encoder_ffn_dim=40, decoder_ffn_dim=48, encoder_layers=2,
        decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=32,
        decoder_start_token_id=3, pad_token_id=0, bos_token_id=2, eos_token_id=3, init_std=0.3,
    )  # fmt: skip
    return BartForConditionalGeneration(config), tokenizers["masked"]


@pytest.fixture
def family(tokenizers: Tokenizers, load_tiny: Callable[..., NeuronModel]) -> Callable[[str], NeuronModel]:
    """Makes a random model in float64."""
    makers: dict[str, Callable[[], Any]] = {
        "llama": lambda: llama(tokenizers),
        "t5": lambda: t5(tokenizers),
        "t5 without sentinels": lambda: t5(tokenizers, sentinels=False),
        "bart": lambda: bart(tokenizers),
        "chat": lambda: chat(tokenizers),
    }

    def make(name: str) -> NeuronModel:
        torch.manual_seed(3)
        if name in ("bert", "gpt2"):
            return load_tiny("masked" if name == "bert" else "causal")
        hugging, tokenizer = makers[name]()
        return load_model((hugging.eval(), tokenizer), dtype="float64", chat=name == "chat")

    return make


def by_hand(model: NeuronModel, name: str) -> list[float]:
    """log p of each answer token in the first prompt, from one pass of the bare model over tokens written out here."""
    ids = model.tokenizer.convert_tokens_to_ids
    hugging: Any = model.model
    words = ["the", "capital", "of", "France", "is"]
    answer = ["Rome", "Paris", "Berlin"]
    if name == "bert":
        tokens = ["[CLS]", *words, "[MASK]", "[MASK]", "[MASK]", ".", "[SEP]"]
        logits, first = hugging(input_ids=torch.tensor([ids(tokens)])).logits, 6
    elif name in ("gpt2", "llama", "chat"):
        answer = ["ĠRome", "ĠParis", "ĠBerlin"]
        asked = (
            ["city", *("Ġ" + w for w in (*words, "lies"))] if name == "chat" else ["the", *("Ġ" + w for w in words[1:])]
        )
        logits, first = hugging(input_ids=torch.tensor([ids([*asked, *answer])])).logits, len(asked) - 1
    else:
        slot, target, first = {
            "t5": (["[CLS]", *words, "<extra_id_0>", ".", "[SEP]"], ["[PAD]", "<extra_id_0>", *answer], 1),
            "bart": (["[CLS]", *words, "[MASK]", ".", "[SEP]"], ["[SEP]", "[CLS]", *words, *answer], 6),
            "t5 without sentinels": (["the", *("Ġ" + w for w in words[1:])], ["<|endoftext|>"], 0),
        }[name]
        if name == "t5 without sentinels":
            answer = ["ĠRome", "ĠParis", "ĠBerlin"]
            target = [*target, *answer]
        given = {"input_ids": torch.tensor([ids(slot)]), "decoder_input_ids": torch.tensor([ids(target)])}
        logits = hugging(**given).logits
    logprobs = logits[0, first : first + 3].detach().log_softmax(-1)
    return [float(logprobs[t, ids(token)]) for t, token in enumerate(answer)]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_objective_is_the_product_of_the_gold_tokens_probabilities(
    family: Callable[[str], NeuronModel], name: str
) -> None:
    model = family(name)
    expected = torch.tensor(by_hand(model, name), dtype=torch.float64)
    found = model.answer_probability(FACT)
    assert found.shape == (2,)
    assert float(found[0].log()) == pytest.approx(float(expected.sum()), abs=1e-9)
    mean = model.answer_probability(FACT, normalised=True)
    assert float(mean[0].log()) == pytest.approx(float(expected.mean()), abs=1e-9)
    queries = model.encode(FACT).prompts
    single = torch.cat([model.answers(b).logprob for _, b in model.batches(queries[:3], 1)])
    order = [i for indices, _ in model.batches(queries[:3], 1) for i in indices]
    assert torch.allclose(single[torch.tensor(order).argsort()], expected, atol=1e-9)
    assert [(q.token, q.tokens) for q in queries] == [(0, 3), (1, 3), (2, 3)] * 2


def test_every_convention_is_tested_here(family: Callable[[str], NeuronModel]) -> None:
    assert {family(name).encoder.convention for name in FAMILIES} == set(CONVENTIONS)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_the_gold_token_comes_next_not_the_most_likely(family: Callable[[str], NeuronModel], name: str) -> None:
    model = family(name)
    first, second, third = model.encode(FACT).prompts[:3]
    _, batch = next(iter(model.batches([first])))
    likely = int(model.answers(batch).top[0])
    assert likely != first.answer_id, "the random model must prefer another token for this test to say anything"
    assert second.input_ids == (*first.input_ids, first.answer_id)
    assert third.input_ids == (*first.input_ids, first.answer_id, second.answer_id)
    continued = Prompt(
        FACT, second.text, (*first.input_ids, likely), second.position, second.answer_id, 1, 3, first.source
    )
    gold, argmax = (model.answers(b).logprob for b in (next(iter(model.batches([p])))[1] for p in (second, continued)))
    assert float(gold[0]) == pytest.approx(by_hand(model, name)[1], abs=1e-9)
    assert abs(float(gold[0] - argmax[0])) > 1e-3


def test_masked_answers_stay_masked(family: Callable[[str], NeuronModel]) -> None:
    first, second, third = family("bert").encode(FACT).prompts[:3]
    assert first.input_ids == second.input_ids == third.input_ids
    assert first.input_ids.count(4) == 3
    assert [p.position for p in (first, second, third)] == [6, 7, 8]


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_means_over_answer_tokens(family: Callable[[str], NeuronModel], name: str) -> None:
    model = family(name)
    scores = score(model, FACT, IntegratedGradients(steps=16), keep_tokens=True)
    assert scores.values.shape == (2, 3, 48)
    assert scores.tokens == (3, 3)
    for row in range(2):
        assert torch.allclose(scores.of_tokens(row).mean(0), scores.values[row], atol=1e-12)
    query = model.encode(FACT).prompts[4]
    _, batch = next(iter(model.batches([query])))
    alone = IntegratedGradients(steps=16).score(model, batch)
    assert torch.allclose(scores.of_tokens(1)[1], alone.values[0], atol=1e-9)
    assert scores.gap is not None
    assert scores.difference is not None
    # The mean of complete scores is as complete, for the mean of the differences.
    assert torch.allclose(scores.values.sum(-1) - scores.difference, scores.gap, atol=1e-9)


def test_token_scores_survive_slicing_stacking_and_saving(
    family: Callable[[str], NeuronModel], facts: FactSet, tmp_path: Path
) -> None:
    model = family("gpt2")
    scores = score(model, [facts[1], FACT], "activation", keep_tokens=True)
    assert scores.tokens == (1,) * 5 + (3, 3)
    assert scores.token_values is not None
    assert scores.token_values.shape[0] == 11
    own = scores.for_fact(FACT.id)
    assert torch.equal(own.of_tokens(1), scores.of_tokens(6))
    joined = stack_scores([own, scores.for_fact(facts[1].id)])
    assert torch.equal(joined.of_tokens(1), scores.of_tokens(6))
    assert torch.equal(joined.of_tokens(2), scores.of_tokens(0))
    scores.save(tmp_path / "s.safetensors")
    loaded = NeuronScores.load(tmp_path / "s.safetensors")
    assert loaded.tokens == scores.tokens
    assert torch.equal(loaded.of_tokens(6), scores.of_tokens(6))
    with pytest.raises(NeuronError, match="were not kept; score with keep_tokens=True"):
        score(model, FACT, "activation").of_tokens(0)


@pytest.mark.parametrize("method", list_methods())
@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_every_method_scores_answers_of_several_tokens(
    family: Callable[[str], NeuronModel], facts: FactSet, name: str, method: str
) -> None:
    scores = score(family(name), FACT, method, contrast=facts)
    assert scores.values.shape == (2, 3, 48)
    assert scores.values.isfinite().all()
    # Where the answer is as unlikely as a random model makes it, there is nothing that a mask could make it lose.
    assert method == "balanced_mask" or scores.values.abs().max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_interventions_act_where_each_token_is_predicted(family: Callable[[str], NeuronModel], name: str) -> None:
    model, neuron = family(name), (1, 5)
    logprob = 0.0
    for query in model.encode(FACT).prompts[:3]:

        def zero(vectors: Tensor, position: int = query.position) -> Tensor:
            vectors = vectors.clone()
            vectors[:, position, neuron[1]] = 0
            return vectors

        _, batch = next(iter(model.batches([query])))
        with model.edited({neuron[0]: zero}):
            logprob += float(model.answers(batch).logprob[0])
    with suppress(model, [neuron]):
        found = float(model.answer_probability(FACT)[0].log())
    assert found == pytest.approx(logprob, abs=1e-9)
    assert abs(found - float(model.answer_probability(FACT)[0].log())) > 1e-9
    text = model.encode(FACT).texts[0]
    for normalised in (False, True):
        outcome = Evaluator(model, max_rows=2, normalised=normalised).run([Job(text, NeuronSet([neuron]), 0.0)])[0]
        assert outcome.logprob == pytest.approx(logprob / (3 if normalised else 1), abs=1e-9)
        assert isinstance(outcome.top, tuple)
        assert len(outcome.top) == 3


@pytest.fixture
def mixed(facts: FactSet) -> FactSet:
    """Facts with answers of one token and of two."""
    answers = ["Rome Paris", "Madrid Rome", "Paris Berlin", "Berlin Rome"]
    long = [
        Fact(f"long:{f.subject}", "long", f.subject, answer, f.prompts, f.held_out)
        for f, answer in zip(facts, answers, strict=True)
    ]
    return FactSet((*facts, *long))


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_the_harness_takes_both_kinds_of_answers(
    family: Callable[[str], NeuronModel], mixed: FactSet, name: str
) -> None:
    model = family(name)
    found = compare(model, mixed, ["gradient_x_activation", "random"], keep=("unknown",), budgets=(3,), progress=False)
    assert (found.facts.status == "used").all()
    assert (found.facts.prompts == 5).all()
    fact = mixed["long:Spain"]
    own = found.neurons.query("method == 'gradient_x_activation' and selection == 'k=3' and fact == @fact.id")
    before = model.answer_probability(fact, "held_out").mean()
    with suppress(model, zip(own.layer, own.neuron, strict=True)):
        after = model.answer_probability(fact, "held_out").mean()
    row = found.rows.query(
        "fact == @fact.id and method == 'gradient_x_activation' and selection == 'k=3' and neurons == 'method' "
        "and intervention == 'suppress' and group == 'target' and metric == 'relative_change'"
    )
    assert row.value.item() == pytest.approx(float(after / before - 1), abs=1e-9)
    assert row.n_prompts.item() == 2


def test_a_fact_is_known_if_every_token_is_on_top(
    family: Callable[[str], NeuronModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family("gpt2")
    real = model.answers
    for wrong, status in ((None, "used"), (1, "unknown")):

        def answers(batch: Any, wrong: int | None = wrong) -> Any:
            found = real(batch)
            ranks = torch.tensor([2 if p.token == wrong else 1 for p in batch.prompts])
            return type(found)(found.logprob, ranks, found.top)

        monkeypatch.setattr(model, "answers", answers)
        (candidate,) = select_facts(model, FactSet((FACT,))).candidates
        assert candidate.status == status
        assert len(candidate.prompts) == 2


def test_queries_find_their_texts() -> None:
    def query(text: str, token: int, tokens: int) -> Prompt:
        return Prompt(FACT, text, (1,), 0, 1, token, tokens)

    prompts = [query("a", 0, 2), query("a", 1, 2), query("a", 0, 1), query("b", 0, 2), query("b", 1, 2)]
    assert [(t.text, len(t)) for t in texts_of(prompts)] == [("a", 2), ("a", 1), ("b", 2)]
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert by_text(values, prompts).tolist() == [3.0, 3.0, 9.0]
    assert by_text(values, prompts, mean=True).tolist() == [1.5, 3.0, 4.5]


def test_a_piece_outside_the_vocabulary_still_leaves_the_answer_out(family: Callable[[str], NeuronModel]) -> None:
    model = family("bert")
    given = Fact("f", "r", "s", "Paris Lutetia", FACT.prompts)
    encoding = model.encoder.encode_all([given, FACT])
    assert [s.cause for s in encoding.skipped] == ["answer unknown to the tokenizer"] * 2
    assert "becomes ['Paris', '[UNK]']" in encoding.skipped[0].reason
    assert len(encoding.texts) == 2
