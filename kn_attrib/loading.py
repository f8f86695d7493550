"""Loading a model from the hub, from disk, from the zoo, or from objects already in memory."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from kn_attrib.compute import Compute, Engine
from kn_attrib.errors import ModelError, unknown
from kn_attrib.model import NeuronModel
from kn_attrib.prompts import Kind
from kn_attrib.zoo import zoo_names, zoo_path

ZOO_PREFIX = "zoo:"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}

Source = str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load_model(
    source: Source,
    dtype: str = "float32",
    device: str | None = None,
    *,
    precision: str = "highest",
    memory_budget: int | None = None,
    engine: Engine = "auto",
) -> NeuronModel:
    """Load a model as layers of feed-forward neurons.

    Parameters
    ----------
    source : ``"zoo:NAME"``, a Hugging Face id, a local folder, or a pair ``(model, tokenizer)``. A pair's model is
        used as it is when it has the asked dtype and device already, and copied otherwise; it is never changed.
    dtype : ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``.
    device : a torch device; default CUDA where there is one, else CPU (for a pair: where its model is).
    precision, memory_budget, engine : how the model is run; see `kn_attrib.compute.Compute`.

    Raises
    ------
    ModelError : the source cannot be found or loaded, or has no masked or causal language-model head.
    """
    if dtype not in DTYPES:
        raise ModelError(unknown("dtype", str(dtype), DTYPES))
    compute = Compute(engine, memory_budget, precision)
    if isinstance(source, tuple):
        return _from_pair(*source, dtype=DTYPES[dtype], device=device, compute=compute)
    where = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = str(source)
    path = str(zoo_path(name.removeprefix(ZOO_PREFIX))) if name.startswith(ZOO_PREFIX) else name
    kind = _kind_of(name, path)
    factory = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = factory.from_pretrained(path, dtype=DTYPES[dtype])
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{name!r} could not be loaded: {error}") from error
    return NeuronModel(model.to(where).eval(), tokenizer, kind, name, compute)  # type: ignore[arg-type]


def digest_of(model: PreTrainedModel) -> str:
    """SHA-256 over the names, shapes and bytes of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        # Viewed as bytes: numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _from_pair(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    device: str | None,
    compute: Compute,
) -> NeuronModel:
    where = _device(device) if device else model.device
    if model.dtype != dtype or model.device != where:
        model = copy.deepcopy(model).to(dtype=dtype, device=where)  # type: ignore[call-arg]
    kind = _kind_of_class(type(model).__name__)
    if kind is None:
        raise ModelError(_no_head(type(model).__name__))
    return NeuronModel(model, tokenizer, kind, str(model.config.name_or_path or type(model).__name__), compute)


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
    try:
        config: Any = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        if Path(path).exists():
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"{name!r} could not be loaded: {reason} Expected a folder that save_pretrained of a model and its "
                "tokenizer wrote."
            ) from error
        zoo = [ZOO_PREFIX + n for n in zoo_names()]
        raise ModelError(
            f"{unknown('model', name, zoo)} It is neither a zoo model, nor a folder with a config.json, nor a Hugging "
            f"Face id that could be fetched ({str(error).splitlines()[0]})."
        ) from error
    for architecture in config.architectures or ():
        kind = _kind_of_class(architecture)
        if kind is not None:
            return kind
    if config.architectures:
        raise ModelError(_no_head(f"{name!r} ({', '.join(config.architectures)})"))
    raise ModelError(f"{name!r}: its config names no architecture; pass (model, tokenizer) instead.")


def _kind_of_class(class_name: str) -> Kind | None:
    if class_name in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values():
        return "masked"
    if class_name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return "causal"
    return None


def _no_head(given: str) -> str:
    return (
        f"{given} has no masked or causal language-model head, so it cannot answer a prompt; expected a class such as "
        "BertForMaskedLM or GPT2LMHeadModel."
    )
