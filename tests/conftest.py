"""Small models and facts that every test can afford."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from kn_attrib.facts import FactSet, facts_from_templates
from kn_attrib.loading import load_model
from kn_attrib.model import NeuronModel

SHARED = Path(__file__).resolve().parents[2] / "shared"

WORDS = """the capital of is in . people country city lies Paris Rome Berlin Madrid France Italy Germany
Spain""".split()  # noqa: SIM905  # a list of words reads better as words


def bert_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words with their leading space (Ġ), as byte-level tokenizers have them."""
    vocabulary = {w: i for i, w in enumerate(["<|endoftext|>", *WORDS, *("Ġ" + w for w in WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<|endoftext|>", bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def tiny_bert(seed: int = 0, **config: object) -> BertForMaskedLM:
    tokenizer = bert_tokenizer()
    settings: dict[str, object] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    model = BertForMaskedLM(BertConfig(**(settings | config)))  # type: ignore[arg-type]
    model.eval()
    return model


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(gpt2_tokenizer()), n_embd=32, n_layer=3, n_head=4, n_inner=48, n_positions=32,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.eval()
    return model


def load_tiny(kind: str, dtype: str = "float64") -> NeuronModel:
    pair = (tiny_bert(), bert_tokenizer()) if kind == "masked" else (tiny_gpt2(), gpt2_tokenizer())
    return load_model(pair, dtype=dtype)


@pytest.fixture(params=["masked", "causal"])
def tiny(request: pytest.FixtureRequest) -> NeuronModel:
    """A random model of either kind in float64."""
    return load_tiny(request.param)


@pytest.fixture
def facts() -> FactSet:
    """Capitals of four countries, five attribution and two held-out templates, all answer-final, lengths mixed."""
    return facts_from_templates(
        "capital",
        [("France", "Paris"), ("Italy", "Rome"), ("Germany", "Berlin"), ("Spain", "Madrid")],
        prompts=[
            "the capital of [X] is [Y].",
            "the capital city of [X] is [Y].",
            "the people of [X] lies in [Y].",
            "[X] capital is [Y].",
            "in the country [X] the capital is [Y].",
        ],
        held_out=["the country [X] capital is [Y].", "the city of [X] is [Y]."],
    )


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Path of a data file that is not shipped (its licence forbids it); the test skips where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not here: data that may not be redistributed lives outside the repository")
        return path

    return find
