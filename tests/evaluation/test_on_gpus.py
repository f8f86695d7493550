"""Experiments on a GPU give what they give on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import bert_tokenizer, gpt2_tokenizer, tiny_bert, tiny_gpt2
from kn_attrib import FactSet, NeuronModel, load_model
from small_results import small_comparison, small_prompt_types, small_reading, small_trace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
EXPERIMENTS: dict[str, Callable[..., Any]] = {
    "compare": small_comparison,
    "prompts": small_prompt_types,
    "read": small_reading,
    "trace": small_trace,
}


def model_on(device: str, kind: str) -> NeuronModel:
    pair = (tiny_bert(), bert_tokenizer()) if kind == "masked" else (tiny_gpt2(), gpt2_tokenizer())
    return load_model(pair, dtype="float64", device=device)


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_gives_the_same(name: str, kind: str, facts: FactSet, tmp_path: Path) -> None:
    further = (tmp_path / "texts.txt",) if name == "prompts" else ()
    on_gpu, on_cpu = (EXPERIMENTS[name](model_on(device, kind), facts, *further) for device in ("cuda", "cpu"))
    for table, frame in on_cpu.tables().items():
        pd.testing.assert_frame_equal(on_gpu.tables()[table], frame, rtol=1e-6, atol=1e-9)
