"""Models that another library has wrapped, adapted, compiled or spread over devices: taken as they are, or refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kn_attrib.errors import ModelError, StoreError
from kn_attrib.models.architectures import NOT_TEXT
from kn_attrib.store import read_json

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
LAYER = re.compile(r"(?:^|\.)(\d+)\.")
SHOWN = 3
MERGE = "model.merge_and_unload()"


class UnwrappedModelWarning(UserWarning):
    """A model is used without what it was wrapped in."""


def unwrapped(model: Any) -> PreTrainedModel:
    """The Hugging Face model inside what `torch.compile` and PEFT wrap it in, with one warning.

    Raises
    ------
    ModelError : there is none inside, it runs compiled code that hooks do not reach, it has adapters that would be lost
        or that sit in its feed-forward blocks, or its weights are offloaded or on several devices.
    """
    inner, said = model, []
    while True:
        if isinstance(getattr(inner, "_orig_mod", None), nn.Module):
            inner = inner._orig_mod
            said.append("it is not run compiled")
        elif _is_peft(inner):
            _check_learned_prompts(inner)
            inner = inner.get_base_model()
            said.append("adapters outside its feed-forward blocks are part of it as they are")
        else:
            break
    if not isinstance(inner, PreTrainedModel):
        raise ModelError(
            f"the model is a {type(model).__name__}; expected a transformers.PreTrainedModel such as GPT2LMHeadModel"
            f"{', which is model.module' if isinstance(getattr(inner, 'module', None), nn.Module) else ''}."
        )
    _check_compiled(inner)
    _check_adapters(inner)
    _check_placement(inner)
    if any(module._compiled_call_impl is not None for module in inner.modules()):
        said.append("what is compiled in place is not run compiled")
    if said:
        inside = "" if inner is model else f" inside the {type(model).__name__}"
        _warn(f"the {type(inner).__name__}{inside} is used: {'; '.join(said)}.")
    return inner


def check_folder(path: str) -> None:
    """Raise ModelError on a folder that holds an adapter: with PEFT installed, transformers would load it unasked."""
    file = Path(path) / "adapter_config.json"
    if not file.is_file():
        return
    try:
        base = dict(read_json(file)).get("base_model_name_or_path")
    except (StoreError, ValueError, TypeError):
        base = None
    of = f" of {base!r}" if base else ""
    raise ModelError(
        f"{path!r} holds a PEFT adapter{of} (adapter_config.json), not a whole model. Merge it first: model = "
        f"peft.PeftModel.from_pretrained(base_model, {path!r}).merge_and_unload(), and pass (model, tokenizer)."
    )


def _warn(message: str) -> None:
    warnings.warn(message, UnwrappedModelWarning, stacklevel=5)


def _is_peft(model: Any) -> bool:
    """Whether PEFT has wrapped it; PEFT itself need not be there."""
    classes = [each for each in type(model).__mro__ if each.__name__ in ("PeftModel", "PeftMixedModel")]
    return bool(classes) and hasattr(model, "get_base_model")


def _check_learned_prompts(model: Any) -> None:
    learned = [name for name, config in dict(model.peft_config).items() if getattr(config, "is_prompt_learning", False)]
    if learned:
        raise ModelError(
            f"the model is a {type(model).__name__} whose adapter {learned[0]!r} learns prompts, which are no part of "
            "the model's weights and cannot be merged into them; pass the model without it "
            "((model.get_base_model(), tokenizer))."
        )


def _check_compiled(model: PreTrainedModel) -> None:
    """Compiled parts do not see hooks that come later, and so no intervention."""
    for name, module in model.named_modules():
        compiled = hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        if compiled or isinstance(getattr(module, "_orig_mod", None), nn.Module):
            where = f"{type(model).__name__}: {name!r}" if name else type(model).__name__
            raise ModelError(
                f"{where} runs code of torch.compile, which interventions do not reach; pass the model as it was "
                "before (torch.compile(model) as a whole is unwrapped)."
            )


def _check_adapters(model: PreTrainedModel) -> None:
    found = list(_adapters_in_ffn(model))
    if not found:
        return
    shown = ", ".join(f"layer {layer} {name!r} ({kind})" for layer, name, kind in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise ModelError(
        f"{type(model).__name__} has adapters inside its feed-forward blocks: {shown}{more}. There the weights are not "
        f"what the neurons write. Merge them first: pass ({MERGE}, tokenizer), with the model as PEFT wraps it."
    )


def _adapters_in_ffn(model: PreTrainedModel) -> Iterator[tuple[int, str, str]]:
    """Layer, name and class of modules that an adapter stands in front of, in the stack that answers."""
    answers = "decoder." if model.config.is_encoder_decoder else ""
    for name, module in model.named_modules():
        layer = LAYER.search(name)
        if layer is None or NOT_TEXT.search(name) or ATTENTION.search(name) or answers not in name:
            continue
        if isinstance(getattr(module, "base_layer", None), nn.Linear | Conv1D):
            yield int(layer[1]), name, f"{type(module).__module__}.{type(module).__qualname__}"


def _check_placement(model: PreTrainedModel) -> None:
    """Interventions read and replace tensors of one device that is there all the time."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"{type(model).__name__}: {name!r} is a meta tensor, whose values are offloaded or were never loaded. "
                "Load the model on one device, without device_map or offloading; dtype='bfloat16' halves its memory."
            )
    hooks = {type(hook).__name__ for module in model.modules() for hook in _accelerate_hooks(module)}
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    devices = {str(parameter.device) for parameter in model.parameters()}
    offloads = sorted(hook for hook in hooks if "offload" in hook.lower())
    if len(places) > 1 or len(devices) > 1 or offloads:
        where = ", ".join(sorted(places | devices) + offloads)
        raise ModelError(
            f"{type(model).__name__} is spread over devices or offloaded ({where}); expected one that is on one device "
            "as a whole. Load it without device_map; dtype='bfloat16' halves its memory."
        )


def _accelerate_hooks(module: nn.Module) -> list[Any]:
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else [hook, *getattr(hook, "hooks", ())]
