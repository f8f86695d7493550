"""Random models with the shapes of well-known ones, and prompts of random tokens."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kn_attrib import Fact, NeuronModel, load_model
from kn_attrib.facts.prompts import Batch, Prompt

SHAPES = {"bert": 28996, "gpt2": 50257, "llama": 32000}
"""Shape -> size of its vocabulary."""


def make_model(shape: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> NeuronModel:
    """A random model; its tokenizer knows the words ``w0``, ``w1``, … and ``[MASK]``."""
    torch.manual_seed(0)
    size = SHAPES[shape]
    model: PreTrainedModel
    if shape == "bert":
        model = BertForMaskedLM(BertConfig(vocab_size=size))
    elif shape == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size))
    else:
        config = LlamaConfig(
            vocab_size=size,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
        )
        model = LlamaForCausalLM(config)
    vocabulary = {f"w{i}": i for i in range(size - 2)} | {"[MASK]": size - 2, "[UNK]": size - 1}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ["input_ids", "attention_mask"]
    if shape == "bert":
        names.insert(1, "token_type_ids")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_input_names=names,
    )
    return load_model((model.eval(), tokenizer), dtype=str(dtype).removeprefix("torch."), device=device)


def make_batch(model: NeuronModel, tokens: int, prompts: int) -> Batch:
    """Prompts of random words; the answer is predicted in the middle by masked models, at the end by causal ones."""
    generator = torch.Generator().manual_seed(0)
    size = model.tokenizer.vocab_size - 2
    fact = Fact(id="r:s", relation="r", subject="s", answer="w7", prompts=("[X] is [Y].",), held_out=())
    made = []
    for _ in range(prompts):
        ids = torch.randint(0, size, (tokens,), generator=generator).tolist()
        position = tokens - 1
        if model.kind == "masked":
            position = tokens // 2
            ids[position] = model.tokenizer.mask_token_id
        answer = int(torch.randint(0, size, (1,), generator=generator))
        made.append(Prompt(fact, "", tuple(ids), position, answer))
    return Batch(tuple(made), model.device)


def text_of(model: NeuronModel, batch: Batch) -> tuple[str, str]:
    """The first prompt and its answer as text, for tools that take text."""
    names = model.tokenizer.convert_ids_to_tokens(list(batch.prompts[0].input_ids))
    return " ".join(names), f"w{batch.prompts[0].answer_id}"
