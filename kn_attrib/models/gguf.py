"""Models in one GGUF file, read by transformers; quantised weights are taken as the numbers that they stand for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from kn_attrib.errors import ModelError

PACKAGES = ("gguf", "accelerate")
"""What transformers reads GGUF files with; the extra ``gguf`` installs them."""


def gguf_file(path: str) -> dict[str, str]:
    """What ``from_pretrained`` of the file's folder needs to be told to read the file; nothing for other paths.

    Raises
    ------
    ModelError : there is no such file, or the packages that read it are not installed.
    """
    file = Path(path)
    if file.suffix.lower() != ".gguf":
        return {}
    if not file.is_file():
        raise ModelError(f"{path!r} does not exist; expected the path of a GGUF file on disk.")
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(
            f"{path!r} is a GGUF file, which {' and '.join(missing)} must be installed to read; "
            "run: pip install kn_attrib[gguf]"
        )
    return {"gguf_file": file.name}


def dequantized() -> dict[str, Any]:
    """What ``from_pretrained`` of a model needs to be told besides, so that its linears are plain ones.

    With kernels for packed weights, releases of transformers that have them keep weights packed, unless asked not to.
    """
    config: Any = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def architectures_of(config: Any) -> list[str]:
    """Class with a language-model head for a configuration that names none, as those of GGUF files."""
    seq2seq = config.is_encoder_decoder
    names = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if seq2seq else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    name: Any = names.get(config.model_type)
    return [name] if isinstance(name, str) else list(name or ())
