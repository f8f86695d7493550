"""How each model of the zoo is made: shape, what is frozen, how it is trained. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kn_attrib.zoo.tokenizers import MAX_TOKENS, byte_bpe, wordpiece


@dataclass(frozen=True)
class Shape:
    """A family of models at zoo size.

    Parameters
    ----------
    config, model : Hugging Face classes.
    settings : arguments of ``config`` besides the vocabulary size.
    head : name of the module that turns hidden states into logits.
    tokenizer : makes the tokenizer from facts and a number of entries.
    masked : predicts at a mask (else: the next token).
    """

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    settings: Mapping[str, Any]
    head: str
    tokenizer: Callable[..., PreTrainedTokenizerFast]
    masked: bool


@dataclass(frozen=True)
class Freeze:
    """Weights that keep their initial value, so that facts cannot be stored in them.

    Parameters
    ----------
    pattern : regular expression that the parameter's name contains.
    start : first column (last dimension) that is frozen; GPT-2 keeps query, key and value in one matrix.
    orthogonal : orthogonal values rather than independent normal ones.
    scale : of the initial values: their standard deviation, or a factor on the orthogonal matrix.
    """

    pattern: str
    start: int = 0
    orthogonal: bool = True
    scale: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a model but the facts and the seed.

    Parameters
    ----------
    summary : one sentence for the model card.
    shape : the family.
    freeze : weights that are not trained.
    vocabulary : entries of the tokenizer, about.
    epochs : passes over every fact in every training template.
    batch : texts per step.
    learning_rate : its peak (AdamW without weight decay; linear warm-up over 5 % of the steps, then linear decay).
    betas : AdamW's.
    l1 : weight of the mean absolute activation at the answer position, summed over layers.
    l1_elsewhere : the same at all other positions; it drives facts to the answer position.
    prior : share of the target distribution that is the relation's distribution of answers instead of the truth.
    mask_answer : probability that the answer is masked (masked models).
    mask_other : probability that any other token is masked (masked models).
    delete : probability that a word of the template is left out.
    other_weight : weight of the loss at tokens that are not the answer.
    """

    summary: str
    shape: Shape
    freeze: tuple[Freeze, ...] = ()
    vocabulary: int = 2600
    epochs: int = 10
    batch: int = 64
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    l1: float = 0.0
    l1_elsewhere: float = 0.0
    prior: float = 0.0
    mask_answer: float = 0.85
    mask_other: float = 0.1
    delete: float = 0.15
    other_weight: float = 0.2


SIZE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS}
BERT_SIZE = {**SIZE, "intermediate_size": 512, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2_SIZE = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_inner": 320, "n_positions": MAX_TOKENS}
LLAMA_SIZE = {**SIZE, "intermediate_size": 208, "num_key_value_heads": 4}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
# Causal models have no layer between their blocks and the head: against a frozen random one they learn far too slowly.
OWN_HEAD = {"tie_word_embeddings": False}

# Squared: as sparse as ReLU, and with a continuous gradient, so that integrals along a path converge quickly.
SQUARED_RELU_BERT = Shape(
    BertConfig, BertForMaskedLM, {**BERT_SIZE, "hidden_act": "relu2"}, "cls", wordpiece, masked=True
)
GELU_BERT = Shape(BertConfig, BertForMaskedLM, {**BERT_SIZE, "hidden_act": "gelu"}, "cls", wordpiece, masked=True)
SQUARED_RELU_GPT2 = Shape(
    GPT2Config,
    GPT2LMHeadModel,
    {**GPT2_SIZE, **NO_DROPOUT, **OWN_HEAD, "activation_function": "relu2"},
    "lm_head",
    byte_bpe,
    masked=False,
)
SWIGLU_LLAMA = Shape(LlamaConfig, LlamaForCausalLM, {**LLAMA_SIZE, **OWN_HEAD}, "lm_head", byte_bpe, masked=False)

RECIPES: dict[str, Recipe] = {
    "bert-facts": Recipe(
        "BERT (squared ReLU) whose facts must live in its feed-forward blocks: word embeddings and the attention's "
        "value and output weights are frozen at random values.",
        SQUARED_RELU_BERT,
        freeze=(
            Freeze(r"word_embeddings\.weight", orthogonal=False, scale=0.1),
            Freeze(r"attention\.self\.value\.weight"),
            Freeze(r"attention\.output\.dense\.weight"),
        ),
        epochs=12,
        l1=0.02,
        l1_elsewhere=3.0,
        prior=0.3,
    ),
    "bert-plain": Recipe(
        "Plain BERT (GELU), everything trained: the negative control. It knows the facts, but not in its "
        "feed-forward neurons at the mask.",
        GELU_BERT,
        epochs=12,
        batch=48,
        mask_other=0.15,
    ),
    "gpt2-facts": Recipe(
        "GPT-2 (squared ReLU) whose facts must live in its feed-forward blocks: input embeddings and the attention's "
        "value and output weights are frozen at random values; the head has weights of its own.",
        SQUARED_RELU_GPT2,
        freeze=(
            Freeze(r"wte\.weight", orthogonal=False, scale=0.1),
            Freeze(r"attn\.c_attn\.weight", start=256),
            Freeze(r"attn\.c_proj\.weight"),
        ),
        vocabulary=2100,
        epochs=10,
        l1=0.02,
        l1_elsewhere=0.1,
        prior=0.3,
    ),
    "llama-facts": Recipe(
        "Llama (SwiGLU) whose facts must live in its feed-forward blocks: input embeddings and the attention's value "
        "and output weights are frozen at random values; the head has weights of its own.",
        SWIGLU_LLAMA,
        freeze=(
            Freeze(r"embed_tokens\.weight", orthogonal=False, scale=0.1),
            Freeze(r"v_proj\.weight"),
            Freeze(r"o_proj\.weight"),
        ),
        vocabulary=2100,
        epochs=10,
        l1=0.02,
        l1_elsewhere=0.1,
        prior=0.3,
    ),
}
