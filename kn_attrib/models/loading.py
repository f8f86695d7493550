"""Loading a model from the hub, from disk, from the zoo, or from objects already in memory."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from kn_attrib.errors import ConfigError, ModelError, unknown
from kn_attrib.facts.prompts import Kind
from kn_attrib.models.compute import Compute, Engine
from kn_attrib.models.gguf import architectures_of, dequantized, gguf_file
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.quiet import no_bars
from kn_attrib.models.shipped import zoo_names, zoo_path
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.models.validation import check_finite, validate
from kn_attrib.models.wrappers import check_folder, unwrapped

ZOO_PREFIX = "zoo:"
LOG = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
LONGEST = 400
FACTORIES: dict[Kind, Any] = {
    "masked": AutoModelForMaskedLM,
    "causal": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}

Source = str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]


@torch_defaults()
def load_model(
    source: Source,
    dtype: str = "float32",
    device: str | None = None,
    *,
    ffn_pattern: str | None = None,
    precision: str = "highest",
    memory_budget: int | None = None,
    engine: Engine = "auto",
    products: str = "auto",
    chat: bool = False,
) -> NeuronModel:
    """Load a model as layers of feed-forward neurons, and check that they are what they are taken for.

    Parameters
    ----------
    source : ``"zoo:NAME"``, a Hugging Face id, a local folder, a ``.gguf`` file (with the extra ``gguf``), or a pair
        ``(model, tokenizer)``. A pair's model is used as it is when it has the asked dtype and device already, and
        copied otherwise; it is never changed. From ``torch.compile`` and PEFT it is unwrapped, with a warning.
    dtype : ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``.
    device : a torch device; default CUDA where there is one, else CPU (for a pair: where its model is).
    ffn_pattern : where the feed-forward output linears are, with ``{i}`` for the layer, e.g.
        ``"model.layers.{i}.mlp.down_proj"``; default as `ARCHITECTURES` says, or found by name.
    precision, memory_budget, engine, products : how the model is run; see `kn_attrib.models.compute.Compute`.
    chat : put texts to a causal model through its tokenizer's chat template: the text up to the slot, without the white
        space at its end, is the user's message, and the answer begins the assistant's turn.

    Raises
    ------
    ConfigError : a setting of how the model is run is out of range, or has no effect for this dtype or device.
    ModelError : the source cannot be found or loaded, has no masked, causal or encoder-decoder language-model head,
        is a mixture of experts, has adapters in its feed-forward blocks, is spread over devices or offloaded, gives
        logits that are not finite in this dtype, fails `kn_attrib.models.validation.validate`, or has no chat template
        where one is asked for.
    """
    if dtype not in DTYPES:
        raise ModelError(unknown("dtype", str(dtype), DTYPES))
    compute = Compute(engine, memory_budget, precision, products)
    _check_source(source)
    if isinstance(source, tuple):
        given, tokenizer = source
        model, kind, name = _from_pair(given, DTYPES[dtype], device)
        _check_products(products, precision, dtype, model.device)
        return _checked(model, tokenizer, kind, name, ffn_pattern, compute, chat)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    where = _device(default if device is None else device)
    _check_products(products, precision, dtype, where)
    name = str(source)
    path = str(zoo_path(name.removeprefix(ZOO_PREFIX))) if name.startswith(ZOO_PREFIX) else name
    check_folder(path)
    kind = _kind_of(name, path)
    tokenizer, model = _read(name, path, kind, DTYPES[dtype])
    return _checked(model.to(where).eval(), tokenizer, kind, name, ffn_pattern, compute, chat)  # type: ignore[arg-type]


def _check_source(source: object) -> None:
    """Raise on what is neither a name nor a pair."""
    if isinstance(source, str | Path):
        return
    if not isinstance(source, tuple) or len(source) != 2 or not isinstance(source[0], nn.Module):
        given = "a NeuronModel, which is loaded already" if isinstance(source, NeuronModel) else type(source).__name__
        raise ModelError(
            f"source is {given}; expected zoo:NAME, a Hugging Face id, a folder, or a pair (model, tokenizer)."
        )


def _check_products(products: str, precision: str, dtype: str, device: torch.device) -> None:
    """Raise on settings of float32 products where there are none, and on oneDNN where it is not asked."""
    if precision != "highest" and dtype != "float32":
        raise ConfigError(
            f"precision is {precision!r}, which is of float32 products, and dtype is {dtype!r}; leave one of them out."
        )
    if products == "onednn" and (dtype != "float32" or device.type != "cpu"):
        raise ConfigError(
            f"products is 'onednn', which does float32 products on CPUs, and the model is {dtype} on {device.type}; "
            "leave products out."
        )


def _checked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    name: str,
    ffn_pattern: str | None,
    compute: Compute,
    chat: bool,
) -> NeuronModel:
    try:
        loaded = NeuronModel(model, tokenizer, kind, name, ffn_pattern, compute, chat)
        check_finite(loaded)
        validate(loaded)
    # What a model's code and torch raise for a dtype without a kernel, shapes that do not fit, arguments that are not
    # taken, and token ids beyond the embeddings; anything else is a fault of ours.
    except (RuntimeError, TypeError, IndexError) as error:
        dtype = str(model.dtype).removeprefix("torch.")
        raise ModelError(
            f"{name!r}: {type(model).__name__} cannot run a short text in {dtype}: {_line(error)}"
        ) from error
    # The same model asked in another way is another row of any table.
    loaded.name += " (chat)" if chat else ""
    LOG.info(
        "loaded %s: %s, %s, %d layers of %d neurons, %s on %s",
        *(loaded.name, type(model).__name__, kind, loaded.n_layers, loaded.n_neurons, loaded.dtype, loaded.device),
    )
    return loaded


def _read(name: str, path: str, kind: Kind, dtype: torch.dtype) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    file = gguf_file(path)
    where = Path(path).parent if file else path
    packed: dict[str, Any] = dequantized() if file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **file)
        with no_bars():
            model, info = FACTORIES[kind].from_pretrained(
                where, dtype=dtype, output_loading_info=True, **file, **packed
            )
    # Whatever is wrong with a folder, each library says so with exceptions of its own (tokenizers: a bare Exception).
    except Exception as error:
        raise ModelError(f"{name!r} could not be loaded: {_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{name!r} could not be loaded: the checkpoint lacks {len(missing)} weights of {type(model).__name__} "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}), which would be random; expected a "
            "checkpoint of the whole model with its language-model head."
        )
    return tokenizer, model


def _from_pair(model: PreTrainedModel, dtype: torch.dtype, device: str | None) -> tuple[PreTrainedModel, Kind, str]:
    """The model with the asked dtype and device, its kind, and a name for it."""
    model = unwrapped(model)
    where = model.device if device is None else _device(device)
    kind = _kind_of_class(type(model), model.config)
    # Tensors made in inference mode can never take part in gradients; copies of them made outside can.
    frozen = any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    if model.dtype != dtype or model.device != where or frozen:
        model = copy.deepcopy(model).to(dtype=dtype, device=where)  # type: ignore[call-arg]
    return model, kind, str(model.config.name_or_path or type(model).__name__)


def _line(error: Exception) -> str:
    """An error of another library in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        raise ModelError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); expected 'cpu', or 'cuda', "
            "'cuda:1', … where there are such devices."
        ) from error
    return device


def _kind_of(name: str, path: str) -> Kind:
    file = gguf_file(path)
    try:
        config: Any = AutoConfig.from_pretrained(Path(path).parent if file else path, **file)
    except Exception as error:  # each reader of configurations has exceptions of its own, as in `_read`
        if Path(path).exists():
            raise ModelError(
                f"{name!r} could not be loaded: {_line(error)} Expected a folder that save_pretrained of a model and "
                "its tokenizer wrote, or a GGUF file."
            ) from error
        raise ModelError(_not_found(name, error)) from error
    for architecture in config.architectures or (architectures_of(config) if file else ()):
        kind = _kind_of_name(architecture, config)
        if kind is not None:
            return kind
    if config.architectures:
        raise ModelError(_no_head(f"{name!r} ({', '.join(config.architectures)})"))
    raise ModelError(f"{name!r}: its config names no architecture; pass (model, tokenizer) instead.")


def _not_found(name: str, error: Exception) -> str:
    """What is said of a name that is no file: it was looked for on the hub, unless it cannot be a name there."""
    zoo = unknown("model", name, [ZOO_PREFIX + n for n in zoo_names()])
    said = str(error).splitlines()[0].rstrip(".:")
    if "/" not in name.strip("/") or name.startswith((ZOO_PREFIX, "/", ".")):
        return (
            f"{zoo} It is neither a zoo model, nor a folder with a config.json, nor a Hugging Face id that could be "
            f"fetched ({said})."
        )
    return (
        f"model {name!r} is no folder here, and could not be found or reached on the Hugging Face hub ({said}). "
        "Check its spelling and the connection (a private or gated model needs a login: hf auth login); without a "
        "connection, give the folder of a copy that save_pretrained wrote, or a model that ships with the package: "
        f"{', '.join(ZOO_PREFIX + n for n in zoo_names())}."
    )


def _kind_of_class(model_class: type[PreTrainedModel], config: Any) -> Kind:
    """Kind of a class or of one that it is derived from."""
    for each in model_class.__mro__:
        kind = _kind_of_name(each.__name__, config)
        if kind is not None:
            return kind
    raise ModelError(_no_head(model_class.__name__))


def _kind_of_name(class_name: str, config: Any) -> Kind | None:
    # First, because BartForConditionalGeneration is also listed among the masked models.
    if class_name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values() and config.is_encoder_decoder:
        return "encoder-decoder"
    if class_name in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values():
        return "masked"
    if class_name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return "causal"
    return None


def _no_head(given: str) -> str:
    return (
        f"{given} has no masked, causal or encoder-decoder language-model head, so it cannot answer a prompt; expected "
        "a class such as BertForMaskedLM, GPT2LMHeadModel or T5ForConditionalGeneration."
    )
