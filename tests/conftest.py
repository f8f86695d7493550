"""Small models and facts that every test can afford."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.loading import facts_from_templates
from kn_attrib.models.loading import load_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.products import HAS_ONEDNN
from kn_attrib.scoring.registry import _METHODS, list_methods
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.units.view import UnitModel
from unit_views import HEADS, KINDS, MODELS, view_of

pytest_plugins = ["axe_core", "hostile_saved"]

# Tests run side by side and their models are tiny: more threads than one only get in each other's way.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Results are compared to the last digit: no timing has a say.
os.environ["KN_ATTRIB_PRODUCTS"] = "onednn" if HAS_ONEDNN else "pytorch"

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
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
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


@pytest.fixture(name="load_tiny")
def load_tiny_fixture() -> Callable[..., NeuronModel]:
    """`load_tiny`, for tests that need one kind or another dtype."""
    return load_tiny


@pytest.fixture(scope="session")
def session_load_tiny() -> Callable[..., NeuronModel]:
    """`load_tiny`, for fixtures that outlive a test."""
    return load_tiny


@pytest.fixture(scope="session")
def make_tiny_bert() -> Callable[[], tuple[BertForMaskedLM, PreTrainedTokenizerFast]]:
    """Makes a random BERT (float32) and its tokenizer."""
    return lambda: (tiny_bert(), bert_tokenizer())


@pytest.fixture
def facts() -> FactSet:
    """`make_facts`, afresh for each test."""
    return make_facts()


@pytest.fixture(scope="module")
def module_facts() -> FactSet:
    """`make_facts`, once for a test file."""
    return make_facts()


def make_facts() -> FactSet:
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


@pytest.fixture
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """The tiny tokenizers by kind of model."""
    return {"masked": bert_tokenizer(), "causal": gpt2_tokenizer()}


@pytest.fixture
def open_model(
    load_tiny: Callable[..., NeuronModel], tokenizers: dict[str, PreTrainedTokenizerFast]
) -> Callable[..., NeuronModel]:
    """BERT, GPT-2, or a Llama whose four query heads share two pairs of keys and values."""

    def make(kind: str, dtype: str = "float64") -> NeuronModel:
        if kind != "grouped":
            return load_tiny(kind, dtype)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizers["causal"]), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=HEADS, num_key_value_heads=2, head_dim=10, max_position_embeddings=32,
            initializer_range=0.2, rms_norm_eps=1.0, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return load_model((LlamaForCausalLM(config).eval(), tokenizers["causal"]), dtype=dtype)

    return make


@pytest.fixture(params=MODELS)
def shape(request: pytest.FixtureRequest) -> str:
    """The kinds of models that `open_model` makes."""
    return str(request.param)


@pytest.fixture
def model(shape: str, open_model: Callable[..., NeuronModel]) -> NeuronModel:
    """A random model of each kind in float64."""
    return open_model(shape)


@pytest.fixture(params=KINDS)
def view(request: pytest.FixtureRequest, model: NeuronModel, facts: FactSet) -> UnitModel:
    """Units of each kind in place of each model's neurons."""
    return view_of(model, facts, str(request.param))


@pytest.fixture(scope="session")
def saved_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT and its tokenizer as `save_pretrained` writes them."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    tiny_bert().save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def facts_file(tmp_path: Path) -> Path:
    """`make_facts` as a .jsonl file."""
    path = tmp_path / "facts.jsonl"
    make_facts().save(path)
    return path


@pytest.fixture
def registry() -> Iterator[dict[str, type[Scorer]]]:
    """The registered methods; what a test registers or loads is forgotten after it."""
    list_methods()
    methods, modules = dict(_METHODS), set(sys.modules)
    yield _METHODS
    _METHODS.clear()
    _METHODS.update(methods)
    for name in set(sys.modules) - modules:
        if name.startswith("kn_attrib_plugin_"):
            del sys.modules[name]
