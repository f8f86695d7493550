"""Two models made by hand, one with a neuron for each fact, one whose neurons serve all of them: told apart in words.

Each prompt ends with its subject's token, and attention gives nothing. *Specific*: a fact's neuron fires on its subject
and writes its answer. *General*: the subject's embedding holds the answer, and louder a wrong word; neurons that always
fire take the wrong word away.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from kn_attrib import Comparison, Fact, FactSet, NeuronModel, load_model
from kn_attrib.evaluation import answers, compare
from kn_attrib.evaluation.report.figures import plane

FACTS, RELATIONS, NEURONS = 16, 5, 24
OPENINGS = ("a", "b", "c", "d")
WRONG = 2 * FACTS
Kind = Literal["specific", "general"]


def handmade(kind: Kind) -> NeuronModel:
    words = ["[UNK]", "wrong", *OPENINGS, *(f"s{i}" for i in range(FACTS)), *(f"o{i}" for i in range(FACTS))]
    subjects, objects = len(words) - 2 * FACTS, len(words) - FACTS
    config = GPT2Config(
        vocab_size=len(words), n_embd=2 * FACTS + 4, n_layer=1, n_head=1, n_inner=NEURONS, n_positions=8,
        activation_function="relu", tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    fact = torch.arange(FACTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" not in name:
                parameter.zero_()
        embedding, head = model.transformer.wte.weight, model.lm_head.weight
        mlp = model.transformer.h[0].mlp
        embedding[subjects + fact, fact] = 4.0
        head[objects + fact, FACTS + fact] = 3.0
        head[1, WRONG] = 3.0
        if kind == "specific":
            mlp.c_fc.weight[fact, fact] = 1.0
            mlp.c_fc.bias -= 1.0  # a norm makes the subject's own entry far larger than that
            mlp.c_proj.weight[fact, FACTS + fact] = 2.0
        else:
            embedding[subjects + fact, FACTS + fact] = 2.0
            embedding[subjects + fact, WRONG] = 4.0
            mlp.c_fc.bias[:4] = 1.0
            mlp.c_proj.weight[:4, WRONG] = -1.0
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    return load_model((model.eval(), tokenizer), dtype="float32")


def facts() -> FactSet:
    def texts(i: int, openings: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{opening} s{i} [Y]" for opening in openings)

    def fact(i: int) -> Fact:
        relation = f"r{i % RELATIONS}"
        return Fact(f"{relation}:{i}", relation, f"s{i}", f"o{i}", texts(i, OPENINGS[:2]), texts(i, OPENINGS[2:]))

    return FactSet(tuple(fact(i) for i in range(FACTS)))


@pytest.fixture(scope="module", params=["specific", "general"])
def found(request: pytest.FixtureRequest) -> tuple[Kind, Comparison]:
    model = handmade(request.param)
    methods = ["integrated_gradients", "activation", "random"]
    return request.param, compare(model, facts(), methods, budgets=(1, 4), interventions=("suppress",), progress=False)


def test_the_sentences_tell_them_apart(found: tuple[Kind, Comparison]) -> None:
    kind, comparison = found
    method, _, anything_else, _, blocks = answers(comparison)
    assert (comparison.facts.status == "used").all()
    if kind == "specific":
        assert anything_else.verdict != "yes"
        assert "general machinery" not in anything_else.answer
        assert "(more than nothing)" in anything_else.answer
        assert "the most specific too" in method.answer
        return
    assert anything_else.verdict == "yes"
    assert "general machinery, not of this fact alone" in anything_else.answer
    assert "(not shown to be more than nothing)" in anything_else.answer
    assert "0.0 of 4.0 are left: the fact changes by 0.0 %" in anything_else.answer
    assert "(not shown to be more than of any text)" in blocks.answer


def test_leaderboard_and_figure_show_it(found: tuple[Kind, Comparison]) -> None:
    kind, comparison = found
    table: Any = comparison.leaderboard()
    best = table.loc["integrated_gradients"]
    assert best["k=4"] < -0.5
    beyond = best["k=4 beyond others"]
    assert beyond > 1 if kind == "specific" else abs(beyond) < 0.05
    assert plane(comparison).get_ylabel() == "nats lost beyond facts of other relations"
