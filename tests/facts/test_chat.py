"""Chat models: a text is the user's message, its answer begins the assistant's turn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from command_line import output, raise_from, run
from kn_attrib import Fact, FactSet, NeuronModel, load_facts, load_model, score
from kn_attrib.errors import FactError, ModelError, PromptError, StoreError
from kn_attrib.evaluation import compare
from kn_attrib.evaluation.comparison.effect_stage import Measurement
from kn_attrib.evaluation.measure.plain_text import given_sentences, plain_texts
from kn_attrib.facts.description import describe_texts
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.repeats import NOT_HELD_OUT
from kn_attrib.models.shipped import zoo_path
from kn_attrib.units.heads import attention_model
from natural import natural_folder

# Its frame names France, which is the subject of the facts below.
TEMPLATE = (
    "{{ bos_token }}System: from France\n{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)
FRAME = "<s>System: from France\nuser: [text]</s>\nassistant:\n"
CORPUS = ["System: from France", "user: The capital of France is Paris", "assistant:\nParis", "Buenos Aires"]


def fact(*prompts: str, held_out: tuple[str, ...] = (), answer: str = "Paris", subject: str = "France") -> Fact:
    return Fact("capital:France", "capital", subject, answer, prompts, held_out)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Puts <s> before each text itself, as its template does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS * 50, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    return fast


def read(encoder: PromptEncoder, given: Fact) -> str:
    """What the model reads before the first token of the answer."""
    first = encoder.encode(given, given.prompts[0])[0]
    assert first.position == len(first.input_ids) - 1
    return str(encoder.tokenizer.decode(list(first.input_ids)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The capital of France is [Y].", "The capital of France is"),
        ("Question: capital?\nAnswer:\n[Y]", "Question: capital?\nAnswer:"),
        ("The capital of France? [Y]", "The capital of France?"),
    ],
)
def test_the_text_up_to_the_slot_is_the_users_message(tokenizer: Any, text: str, message: str) -> None:
    encoder = PromptEncoder(tokenizer, "causal", chat=True)
    assert (encoder.convention, encoder.chat_frame) == ("chat", FRAME)
    assert read(encoder, fact(text)) == FRAME.replace("[text]", message)


def test_the_tokens_are_the_templates_and_no_special_token_comes_twice(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, "causal", chat=True)
    first = encoder.encode(fact("The capital of France is [Y]."), "The capital of France is [Y].")[0]
    conversation = [{"role": "user", "content": "The capital of France is"}]
    expected = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
    assert list(first.input_ids) == expected
    assert expected.count(tokenizer.bos_token_id) == 1
    tokenizer.chat_template = TEMPLATE.replace("{{ bos_token }}", "")
    without = PromptEncoder(tokenizer, "causal", chat=True).encode(first.fact, first.text)[0]
    assert list(without.input_ids) == expected[1:]


def test_the_answer_has_the_space_that_the_template_ends_in(tokenizer: Any) -> None:
    given = fact("The capital of France is [Y].")
    encoder = PromptEncoder(tokenizer, "causal", chat=True)
    ids = [query.answer_id for query in encoder.encode(given, given.prompts[0])]
    assert tokenizer.decode(ids) == "Paris"
    tokenizer.chat_template = TEMPLATE.replace("assistant:\n", "assistant: ")
    ids = [query.answer_id for query in PromptEncoder(tokenizer, "causal", chat=True).encode(given, given.prompts[0])]
    assert tokenizer.decode(ids) == " Paris"


def test_later_tokens_of_the_answer_follow_the_gold_ones(tokenizer: Any) -> None:
    given = fact("Argentina? [Y]", answer="Buenos Aires")
    first, *others = PromptEncoder(tokenizer, "causal", chat=True).encode_all([given]).prompts
    assert others
    for query in others:
        gold = [first.answer_id, *(q.answer_id for q in others)][: query.token]
        assert list(query.input_ids) == [*first.input_ids, *gold]


@pytest.mark.parametrize("subject", ["France", "user", "Italy"])
def test_the_subject_is_found_in_the_message_alone(tokenizer: Any, subject: str) -> None:
    given = fact("The capital of France is [Y].", subject=subject)
    encoder = PromptEncoder(tokenizer, "causal", chat=True)
    prompt = encoder.encode(given, given.prompts[0])[0]
    span = encoder.subject_span(prompt)
    if subject != "France":
        assert span is None
        return
    assert span is not None
    assert tokenizer.decode(prompt.input_ids[slice(*span)]).strip() == "France"
    assert "capital of" in tokenizer.decode(prompt.input_ids[: span[0]])


def test_texts_that_differ_after_the_message_are_the_same(tokenizer: Any) -> None:
    given = fact("The capital is [Y]", held_out=("The capital is\n[Y].", "The capital of France is [Y]"))
    encoding = PromptEncoder(tokenizer, "causal", chat=True).encode_all([given], "held_out")
    assert [s.cause for s in encoding.skipped] == [NOT_HELD_OUT]
    assert not PromptEncoder(tokenizer, "causal").encode_all([given], "held_out").skipped


def test_what_a_chat_cannot_be_asked_is_left_out_with_its_reason(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, "causal", chat=True)
    with pytest.raises(PromptError, match="goes on after the slot"):
        encoder.encode(fact("[Y] is"), "the [Y] is a city")
    with pytest.raises(PromptError, match="has nothing before the slot"):
        encoder.encode(fact("[Y]"), "[Y]")
    tokenizer.chat_template = (
        "{% if 'Berlin' in messages[0]['content'] %}{{ raise_exception('no, thanks') }}{% endif %}"
    )
    encoding = encoder.encode_all([fact("In Berlin, [Y]")])
    assert encoding.skipped[0].cause == "chat template"
    assert "cannot be filled with 'In Berlin,' (no, thanks)" in encoding.skipped[0].reason


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model whose tokenizer has a chat template."""
    where = tmp_path_factory.mktemp("models") / "chat"
    AutoModelForCausalLM.from_pretrained(zoo_path("gpt2-facts")).save_pretrained(where)
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("gpt2-facts"))
    tokenizer.chat_template = "The user asks: {{ messages[0]['content'] }}, and the right answer is "
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def chat(folder: Path) -> NeuronModel:
    return load_model(folder, chat=True)


def test_a_chat_model_answers_as_it_does_to_the_filled_template(folder: Path, chat: NeuronModel) -> None:
    plain = load_model(folder)
    asked = fact("The capital of France is [Y].")
    filled = fact("The user asks: The capital of France is, and the right answer is [Y]")
    assert chat.answer_probability(asked).equal(plain.answer_probability(filled))
    assert not torch.isclose(chat.answer_probability(asked), plain.answer_probability(asked))
    assert score(chat, asked, "gradient").values.equal(score(plain, filled, "gradient").values)


def test_a_chat_is_part_of_the_name_and_of_the_provenance(folder: Path, chat: NeuronModel) -> None:
    assert chat.name == f"{folder} (chat)"
    frame = "The user asks: [text], and the right answer is "
    assert score(chat, fact("France has [Y]"), "random").provenance["chat"] == frame
    assert score(load_model(folder), fact("France has [Y]"), "random").provenance["chat"] == ""
    found = compare(chat, load_facts("world").of("capital")[:2], ["random"], keep=("unknown",), progress=False)
    assert found.manifest["model"]["chat"] == frame


def test_ordinary_sentences_are_no_chat(chat: NeuronModel) -> None:
    (text,) = plain_texts(chat, given_sentences(["The capital of France is Paris."]))
    ids = text.queries[0].input_ids
    assert "The capital of France is Paris.".startswith(str(chat.tokenizer.decode(list(ids))))


def test_heads_of_a_chat_model_are_asked_as_it_is(chat: NeuronModel) -> None:
    heads, _ = attention_model(chat)
    assert heads.encoder.chat
    assert heads.name == chat.name


def test_models_without_a_chat_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"'zoo:bert-facts' is a masked model; chat is for causal models\. Load it with"
    ):
        load_model("zoo:bert-facts", chat=True)
    with pytest.raises(ModelError, match="'zoo:gpt2-facts': its tokenizer has no chat template, so it cannot be asked"):
        load_model("zoo:gpt2-facts", chat=True)
    pair = (
        AutoModelForCausalLM.from_pretrained(zoo_path("gpt2-facts")),
        AutoTokenizer.from_pretrained(zoo_path("gpt2-facts")),
    )
    pair[1].chat_template = "{{ raise_exception('two turns, please') }}"
    with pytest.raises(ModelError, match=r"chat template cannot be filled with '\[text\]' \(two turns, please\)"):
        load_model(pair, chat=True)
    pair[1].chat_template = "Hello"
    with pytest.raises(ModelError, match=r"leaves the user's message out \(it makes 'Hello'\)"):
        load_model(pair, chat=True)


# -- commands ----------------------------------------------------------------------------------------------------------


def test_every_command_that_takes_a_model_asks_it_as_a_chat(folder: Path, tmp_path: Path) -> None:
    common = ["--model", folder, "--chat"]
    given = output("facts", "--fact", "capital:France", *common)
    assert f"{folder} (chat), causal, asked by 'chat'" in given
    assert "asked by 'prefix'" in output("facts", "--fact", "capital:France", *common[:2])
    own = tmp_path / "facts.jsonl"
    FactSet((fact("The capital of France is [Y]."),)).save(own)
    assert f"on {folder} (chat)" in output("score", "--method", "random", "--facts", own, *common)
    assert "chat: the text up to the slot" in output("models", "--check", folder, "--chat")
    with pytest.raises(FactError, match=re.escape(f"{folder} (chat) has no fact")):
        raise_from(run("protocol", "inj", "--facts", own, "--out", tmp_path / "inj", *common))


def test_a_comparison_goes_on_only_as_it_began(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Measurement, "methods", stop)
    common = ["compare", "--model", folder, "--methods", "random", "--relations", "capital", "--keep", "unknown"]
    common += ["--limit", 1, "--out", tmp_path / "run"]
    assert run(*common, "--chat").exit_code == 130
    with pytest.raises(StoreError, match="holds an unfinished run with other chat; ask for the same"):
        raise_from(run(*common))


# -- natural models ----------------------------------------------------------------------------------------------------


def test_a_natural_chat_model_answers_questions() -> None:
    folder = natural_folder("smollm2")
    plain, chat = load_model(folder), load_model(folder, chat=True)
    question = fact("Question: What is the capital of France?\nAnswer: [Y]")
    (text,) = describe_texts(chat.encoder, question)
    assert [str(token) for token in text.tokens[-5:]] == ["Ċ='\\n'", "<|im_start|>", "ass", "istant", "Ċ='\\n'"]
    assert [token.piece for token in text.answer] == ["Paris"]
    assert [token.piece for token in text.tokens].count("<|im_start|>") == 3
    before, after = float(plain.answer_probability(question)), float(chat.answer_probability(question))
    assert 0.005 < before < 0.02
    assert 0.1 < after < 0.15
