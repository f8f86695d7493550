"""Where the feed-forward output linear is, per ``model_type``: data, not code.

The *neuron vector* of a layer is what enters this linear (after the activation function; for gated blocks
after the product ``act(gate) * up``). ``{i}`` stands for a number: the layer's index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kn_attrib.errors import ModelError
from kn_attrib.models.matrices import value_matrix

Origin = Literal["table", "found", "given"]


@dataclass(frozen=True)
class Architecture:
    """Names of the modules that matter in one family of models.

    Parameters
    ----------
    model_type : ``config.model_type`` of the family.
    ffn_output : path of the feed-forward output linear; ``{i}``, ``{j}`` stand for numbers. Encoder-decoders: the
        decoder's.
    shared_module : one module serves several layers; a layer is then one *call* of it.
    flattened : the linear reads ``[row · token, neuron]`` instead of ``[row, token, neuron]``.
    post_norm : a norm stands between the linear and the residual stream. Value vectors pass through it, and scaling all
        of a layer's neurons together changes nothing until they are almost zero, where all changes at once.
    origin : ``"table"``, ``"found"`` (by its name, in a type the table does not list) or ``"given"`` by the user.
    """

    model_type: str
    ffn_output: str
    shared_module: bool = False
    flattened: bool = False
    post_norm: bool = False
    origin: Origin = "table"

    def modules(self, model: PreTrainedModel) -> dict[str, nn.Module]:
        """Name -> module of every feed-forward output linear, in the order of their indices.

        Raises
        ------
        ModelError : the path leads nowhere, to other kinds of modules, or the widths differ between layers.
        """
        path = re.compile("^" + re.sub(r"\\\{\w+\\\}", r"(\\d+)", re.escape(self.ffn_output)) + "$")
        found: list[tuple[list[int], str, nn.Module]] = []
        for name, module in model.named_modules():
            match = path.match(name)
            if match is not None:
                found.append(([int(number) for number in match.groups()], name, module))
        if not found:
            raise ModelError(
                f"{type(model).__name__} has no modules {self.ffn_output!r} for i = 0, 1, …; pass ffn_pattern= with "
                "the path of its feed-forward output linear, e.g. 'model.layers.{i}.mlp.down_proj'."
            )
        modules = {name: module for _, name, module in sorted(found, key=lambda entry: entry[0])}
        if len({value_matrix(module).shape for module in modules.values()}) > 1:
            raise ModelError(f"{type(model).__name__}: feed-forward widths differ between layers; expected one width.")
        return modules


BERT = "encoder.layer.{i}.output.dense"
LLAMA = "model.layers.{i}.mlp.down_proj"
T5 = "decoder.block.{i}.layer.2.DenseReluDense.wo"

ARCHITECTURES: dict[str, Architecture] = {
    row.model_type: row
    for row in (
        # Masked
        Architecture("bert", f"bert.{BERT}"),
        Architecture("roberta", f"roberta.{BERT}"),
        Architecture("xlm-roberta", f"roberta.{BERT}"),
        Architecture("camembert", f"roberta.{BERT}"),
        Architecture("distilbert", "distilbert.transformer.layer.{i}.ffn.lin2"),
        Architecture(
            "albert", "albert.encoder.albert_layer_groups.{i}.albert_layers.{j}.ffn_output", shared_module=True
        ),
        Architecture("electra", f"electra.{BERT}"),
        Architecture("deberta", f"deberta.{BERT}"),
        Architecture("deberta-v2", f"deberta.{BERT}"),
        Architecture("mpnet", f"mpnet.{BERT}"),
        Architecture("modernbert", "model.layers.{i}.mlp.Wo"),
        # Causal
        Architecture("gpt2", "transformer.h.{i}.mlp.c_proj"),
        Architecture("gpt_neo", "transformer.h.{i}.mlp.c_proj"),
        Architecture("gpt_neox", "gpt_neox.layers.{i}.mlp.dense_4h_to_h"),
        Architecture("gptj", "transformer.h.{i}.mlp.fc_out"),
        Architecture("opt", "model.decoder.layers.{i}.fc2", flattened=True),
        Architecture("bloom", "transformer.h.{i}.mlp.dense_4h_to_h"),
        Architecture("codegen", "transformer.h.{i}.mlp.fc_out"),
        Architecture("falcon", "transformer.h.{i}.mlp.dense_4h_to_h"),
        Architecture("mpt", "transformer.blocks.{i}.ffn.down_proj"),
        Architecture("xglm", "model.layers.{i}.fc2"),
        Architecture("llama", LLAMA),
        Architecture("mistral", LLAMA),
        Architecture("qwen2", LLAMA),
        Architecture("qwen3", LLAMA),
        Architecture("gemma", LLAMA),
        Architecture("gemma2", LLAMA, post_norm=True),
        Architecture("gemma3_text", LLAMA, post_norm=True),
        # The multimodal wrapper: its text backbone only.
        Architecture("gemma3", "model.language_model.layers.{i}.mlp.down_proj", post_norm=True),
        Architecture("phi", "model.layers.{i}.mlp.fc2"),
        Architecture("phi3", LLAMA),
        Architecture("olmo", LLAMA),
        Architecture("olmo2", LLAMA, post_norm=True),
        Architecture("olmo3", LLAMA, post_norm=True),
        Architecture("stablelm", LLAMA),
        Architecture("starcoder2", "model.layers.{i}.mlp.c_proj"),
        Architecture("cohere", LLAMA),
        Architecture("granite", LLAMA),
        Architecture("smollm3", LLAMA),
        Architecture("glm4", LLAMA, post_norm=True),
        Architecture("nemotron", LLAMA),
        # Encoder-decoder: the decoder answers.
        Architecture("t5", T5),
        Architecture("mt5", T5),
        Architecture("bart", "model.decoder.layers.{i}.fc2"),
    )
}

SUFFIX = re.compile(
    r"(?:^|\.)(?:(?<!attention\.)(?<!attn\.)output\.dense|ffn\.lin2|ffns\.\d+\.lin2|ffn_output"
    r"|(?:mlp|DenseReluDense)\.wo|mlp\.Wo|mlp\.c_proj|mlp\.dense_4h_to_h|mlp\.fc_out|fc2"
    r"|(?:mlp|ffn|feed_forward)\.down_proj|feed_forward\.w2)$"
)
"""How feed-forward output linears of dense models are called, for types that the table does not list."""

NOT_TEXT = re.compile(r"(?:^|\.)\w*(?:vision|visual|audio|image|speech)\w*\.")
EXPERTS = re.compile(r"(?:^|\.)\w*experts?\w*(?:\.|$)")


def supported() -> str:
    """What can be loaded, as the end of an error message."""
    return (
        f"Supported: dense models of the types {', '.join(sorted(ARCHITECTURES))}; other dense types whose "
        "feed-forward output linear has a usual name; any, with ffn_pattern='path.of.layer.{i}.its.output.linear'."
    )


def find_architecture(model: PreTrainedModel, ffn_pattern: str | None = None) -> Architecture:
    """Where this model's feed-forward output linears are: as given, as the table says, or found by name.

    Parameters
    ----------
    ffn_pattern : path with ``{i}`` for the layer's index, used instead of the table.

    Raises
    ------
    ModelError : a mixture of experts, or no feed-forward output linear can be told from the modules' names.
    """
    model_type = str(model.config.model_type)
    if ffn_pattern is not None:
        if "{i}" not in ffn_pattern:
            raise ModelError(f"ffn_pattern is {ffn_pattern!r}; expected {{i}} where the layer's index stands.")
        return Architecture(model_type, ffn_pattern, origin="given")
    expert = next((name for name, _ in model.named_parameters() if EXPERTS.search(name)), None)
    if expert is not None:
        raise ModelError(
            f"model type {model_type!r} ({type(model).__name__}) is a mixture of experts: its feed-forward weights lie "
            f"in experts that each token is routed to ({expert!r}), so no module sees one neuron vector per layer and "
            f"token. {supported()}"
        )
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    return _found_by_name(model, model_type)


def find_ffn_outputs(model: PreTrainedModel) -> list[nn.Module]:
    """The distinct feed-forward output linears of a model in order (see `find_architecture`)."""
    return list(find_architecture(model).modules(model).values())


def _found_by_name(model: PreTrainedModel, model_type: str) -> Architecture:
    patterns = dict.fromkeys(
        _pattern(name)
        for name, module in model.named_modules()
        if SUFFIX.search(name) and not NOT_TEXT.search(name) and isinstance(module, nn.Linear | Conv1D)
    )
    if model.config.is_encoder_decoder:
        patterns = {p: None for p in patterns if re.search(r"(?:^|\.)decoder\.", p)}
    if len(patterns) != 1:
        what = f"several candidates ({', '.join(patterns)})" if patterns else "no module with such a name"
        raise ModelError(
            f"model type {model_type!r} ({type(model).__name__}) is not in the table, and looking for its feed-forward "
            f"output linear by name gives {what}. {supported()}"
        )
    return Architecture(model_type, next(iter(patterns)), origin="found")


def _pattern(name: str) -> str:
    """``"model.layers.3.mlp.down_proj"`` -> ``"model.layers.{i}.mlp.down_proj"`` (only the first number is a layer's
    index; later ones belong to the path, as in T5's ``layer.2``)."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "{i}", name, count=1)
