"""Plants and the benchmark on them are the same whatever the caller has switched on in PyTorch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from kn_attrib import load_facts, load_model
from kn_attrib.evaluation import Recipe, benchmark, plant


def test_the_planted_benchmark_and_plants_are_those_of_a_plain_call() -> None:
    found = []
    facts = load_facts("world").of("capital")[:4]
    new = replace(facts[0], answer=facts[1].answer)
    for caller in (nullcontext, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)):
        with caller():
            model = load_model("zoo:gpt2-facts")
            made = plant(model, new, [(0, 3), (1, 5)], facts[2:], recipe=Recipe(steps=3))
            result = benchmark(
                ["zoo:gpt2-facts"], ["gradient_x_activation"], limit=1, max_prompts=1, contrast_facts=0, progress=False
            )
        found.append((made.values, made.targets[0].check, result.rows.value.tolist()))
    plain, *others = found
    for other in others:
        assert torch.equal(plain[0], other[0])
        assert plain[1:] == other[1:]
