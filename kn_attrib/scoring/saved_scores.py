"""Saved scores are what they should be: the fields of a `NeuronScores` file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kn_attrib.errors import StoreError
from kn_attrib.store import parsed_json, read_tensors

TEXTS = ("facts", "relations", "texts")
BY_LAYER = ("gap", "difference", "error", "capped")
FIELDS = {*TEXTS, "method", "params", "provenance", "tokens"}
TENSORS = {"values", "token_values", *BY_LAYER}


def read_scores(path: Path) -> dict[str, Any]:
    """The fields of the scores in a file.

    Raises
    ------
    StoreError : the file is missing, damaged, or of something else.
    """
    try:
        tensors, about = read_tensors(path)
        if "kn_attrib" not in about:
            raise ValueError("it says nothing of scores")
        record = parsed_json(about["kn_attrib"])
        _check_record(record)
        _check_tensors(tensors, record)
    except (StoreError, ValueError) as error:
        raise StoreError(f"cannot read scores from {path}: {error} Expected a file of NeuronScores.save.") from error
    return {**tensors, **record, **{name: tuple(record.get(name, ())) for name in (*TEXTS, "tokens")}}


def _check_record(record: Any) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"its record is {type(record).__name__}, not an object.")
    strange = sorted(record.keys() - FIELDS)
    if strange:
        raise ValueError(f"it has a field {strange[0]!r}; known are {', '.join(sorted(FIELDS))}.")
    for name in TEXTS:
        texts = record.get(name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"its {name!r} are no list of texts.")
    for name, kind in (("method", str), ("params", dict), ("provenance", dict), ("tokens", list)):
        if not isinstance(record.get(name, kind()), kind) or (name == "method" and name not in record):
            raise ValueError(f"its {name!r} is {record.get(name)!r}, not of type {kind.__name__}.")
    if not all(type(number) is int and number > 0 for number in record.get("tokens", ())):
        raise ValueError("its 'tokens' are no list of numbers of at least 1.")


def _check_tensors(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    strange = sorted(tensors.keys() - TENSORS)
    if strange or "values" not in tensors:
        raise ValueError(f"its tensors are {', '.join(sorted(tensors)) or 'none'}; expected 'values' at least.")
    values = tensors["values"]
    if values.ndim != 3 or not values.is_floating_point():
        raise ValueError(f"its values are {values.dtype} of shape {list(values.shape)}, not [prompt, layer, neuron].")
    prompts, *sizes = values.shape
    for name in (*TEXTS, "tokens"):
        found = len(record.get(name, ()))
        if found != prompts and (found or name != "tokens"):
            raise ValueError(f"it has {found} {name} for {prompts} prompts.")
    expected = {name: [prompts, sizes[0]] for name in BY_LAYER}
    expected["token_values"] = [sum(record.get("tokens", ())), *sizes]
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        right = tensor.dtype == torch.bool if name == "capped" else tensor.is_floating_point()
        if list(tensor.shape) != shape or not right:
            raise ValueError(f"its {name} is {tensor.dtype} of shape {list(tensor.shape)}; expected {shape}.")
