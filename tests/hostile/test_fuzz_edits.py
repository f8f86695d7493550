"""Whatever a file of an edit holds, what reads it returns an edit or says what is wrong, and never half an edit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import answered, changed, encoded, files, fuzz, trees
from kn_attrib import NeuronModel, WeightDelta, apply_delta
from kn_attrib.editing import RankOne, ValueVectors
from kn_attrib.errors import EditError, KnAttribError, StoreError
from kn_attrib.models.neuron_model import digest_of

KINDS = ["F8_E4M3", "F8_E5M2", "BF16", "F16", "F64", "I64", "BOOL", "U8", "F4", ""]


def headed(header: Any, rest: bytes) -> bytes:
    """A safetensors file with another header."""
    text = encoded(header)
    return len(text).to_bytes(8, "little") + text + rest


def test_edits(tmp_path: Path, load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("causal", "float32")
    path, digest = tmp_path / "edit.safetensors", model.digest
    changes = (ValueVectors(0, torch.tensor([3, 40]), torch.ones(2, 32)), RankOne(2, torch.ones(48), torch.ones(32)))
    WeightDelta(changes, digest, {"editor": "e", "fact": "f", "target": "t"}).save(path)
    valid = path.read_bytes()
    size = 8 + int.from_bytes(valid[:8], "little")
    header, rest = json.loads(valid[8:size]), valid[size:]
    record = json.loads(header["__metadata__"]["kn_attrib_edit"])

    def with_record(tree: Any) -> bytes:
        return headed(header | {"__metadata__": {"kn_attrib_edit": json.dumps(tree)}}, rest)

    def of_kind(kind: str) -> bytes:
        name = "layer.0.vectors"
        return headed(header | {name: header[name] | {"dtype": kind, "data_offsets": [0, 0], "shape": [0, 32]}}, rest)

    headers = changed(header).map(lambda tree: headed(tree, rest))
    records = (changed(record) | trees).map(with_record)

    @fuzz
    @given(files(valid) | headers | records | st.sampled_from(KINDS).map(of_kind))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = answered("WeightDelta", lambda: WeightDelta.load(path), StoreError)
        if found is not None:
            assert found.norm >= 0
            try:
                with apply_delta(model, found) as applied:
                    assert isinstance(str(applied), str)
            except KnAttribError:
                pass
            assert digest_of(model.model) == model.digest == digest

    read()


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_small_numbers(kind: torch.dtype, tmp_path: Path, load_tiny: Callable[..., NeuronModel]) -> None:
    model = load_tiny("causal", "float32")
    left, right = torch.ones(48).to(kind), torch.ones(32).to(kind)
    if kind.itemsize == 1:
        with pytest.raises(EditError, match="expected one vector of floating-point numbers of 16 to 64 bits"):
            RankOne(2, left, right)
        return
    delta = WeightDelta((RankOne(2, left, right),), model.digest)
    delta.save(tmp_path / "a.safetensors")
    with apply_delta(model, WeightDelta.load(tmp_path / "a.safetensors")):
        assert digest_of(model.model) != delta.model_digest
    assert digest_of(model.model) == delta.model_digest
