"""Natural models: seconds, memory and error of integrated gradients, against hooks + autograd and the machine's floor.

    OMP_NUM_THREADS=1 python benchmarks/natural.py FOLDER [--models smollm2,gemma3] [--facts 10]

FOLDER holds ``smollm2/`` and ``gemma3/`` (HuggingFaceTB/SmolLM2-135M-Instruct, google/gemma-3-270m, as save_pretrained
writes them). Times are CPU seconds; each model is measured in a process of its own, for its peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kn_attrib import Fact, NeuronModel, list_methods, load_facts, load_model, score
from kn_attrib.facts.prompts import Prompt
from kn_attrib.methods import IntegratedGradients
from kn_attrib.store import versions

METHOD = "integrated_gradients"
REFERENCE = f"{METHOD}(tolerance=0.001)"
"""Errors are some tenth of the tolerance."""
HAND_STEPS = 20
TOP = 20
METHOD_PROMPTS = 4
CHEAP = {"ablation": "ablation(screen=0.02)", "restoration": "restoration(draws=3, screen=0.01)"}
"""What is timed in the place of methods that take more than a minute for a prompt."""


def seconds(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the CPU seconds it takes."""
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


def by_hand(model: NeuronModel, prompt: Prompt, layer: int) -> Tensor:
    """A straightforward user's code: a hook that scales one layer, autograd, a Riemann sum of 20 steps in one batch."""
    ids = torch.tensor([prompt.input_ids])
    site, position = model.ffn_outputs[layer], prompt.position
    clean: list[Tensor] = []
    handle = site.register_forward_pre_hook(lambda _, inputs: clean.append(inputs[0][0, position].detach()))
    model.model(ids)
    handle.remove()
    alphas = torch.arange(HAND_STEPS)[:, None] / HAND_STEPS
    rows = (alphas * clean[0]).requires_grad_()

    def put(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        vectors = inputs[0].clone()
        vectors[:, position] = rows
        return (vectors,)

    handle = site.register_forward_pre_hook(put)
    logits = model.model(ids.expand(HAND_STEPS, -1)).logits[:, position]
    handle.remove()
    (slopes,) = torch.autograd.grad(logits.softmax(-1)[:, prompt.answer_id].sum(), rows)
    return clean[0] * slopes.mean(0)


def gemm_peak() -> float:
    """Floating-point operations a second of a large float32 product on this machine."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    a @ b
    _, spent = seconds(lambda: [a @ b for _ in range(10)])
    return 10 * 2 * 1024**3 / spent


def errors(folder: str, n_facts: int) -> dict[str, Any]:
    """Of the default against tight integrals in double precision: one prompt each of facts of all relations in turn."""
    single, double = load_model(folder), load_model(folder, dtype="float64")
    clear = load_facts("world").where(lambda fact: not fact.is_ambiguous)
    facts = [with_prompts(single, fact, 1) for fact in clear.spread(n_facts)]
    relations = {fact.relation for fact in facts}
    found, exact = (score(m, facts, method) for m, method in ((single, METHOD), (double, REFERENCE)))
    lengths, rows, agree = [], [], []
    for ours, right in zip(found.values.double(), exact.values, strict=True):
        lengths.append(float((ours - right).norm() / right.norm()))
        rows.append(float(((ours - right).norm(dim=1) / right.norm(dim=1).max()).max()))
        top = [set(each.flatten().topk(TOP).indices.tolist()) for each in (ours, right)]
        agree.append(len(top[0] & top[1]) / TOP)
    share = sum(length <= 0.01 for length in lengths) / len(lengths)
    return {
        "error_prompts": len(lengths),
        "relations": len(relations),
        "median_error": sorted(lengths)[len(lengths) // 2],
        "worst_error": max(lengths),
        "share_within_1e-2": share,
        "worst_layer_of_longest": max(rows),
        "mean_top_20_agreement": sum(agree) / len(agree),
    }


def with_prompts(model: NeuronModel, fact: Fact, most: int) -> Fact:
    """A fact with its first texts that the model can be asked."""
    texts = dict.fromkeys(prompt.text for prompt in model.encode(fact).prompts)
    return replace(fact, prompts=tuple(texts)[:most])


def every_method(folder: str, cheap: dict[str, str]) -> dict[str, Any]:
    """CPU seconds per prompt of every method: one fact × 4 prompts, with twelve others to compare with."""
    model = load_model(folder)
    facts = load_facts("world")
    fact = with_prompts(model, facts["capital:France"], METHOD_PROMPTS)
    others = [other for other in facts.spread(12) if other.id != fact.id]
    found = {}
    for name in list_methods():
        spec = cheap.get(name, name)
        scores, spent = seconds(lambda spec=spec: score(model, fact, spec, contrast=others))  # type: ignore[misc]
        finite = bool(scores.values.isfinite().all())
        found[name] = {"method": spec, "seconds_per_prompt": spent / METHOD_PROMPTS, "finite": finite}
        print(name, found[name], flush=True)
    return found


def times(folder: str) -> dict[str, Any]:
    """Seconds for the prompts of one fact, against a user's own code, and the peak memory of it all."""
    model = load_model(folder)
    fact = next(f for f in load_facts("world") if f.id == "capital:France")
    prompts = model.encode(fact).prompts
    before = model.execution.cost.forwards
    _, spent = seconds(lambda: score(model, fact, METHOD))
    rows = model.execution.cost.forwards - before
    _, again = seconds(lambda: score(model, fact, METHOD))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    layers = [0, model.n_layers // 2]
    _, hand = seconds(lambda: [by_hand(model, prompts[-1], layer) for layer in layers])
    many = [prompts[-1]] * 16
    batch = next(iter(model.batches(many)))[1]
    _, batched = seconds(lambda: IntegratedGradients().score(model, batch))
    by_hand_each = hand * model.n_layers / len(layers)
    return {
        "prompts": len(prompts),
        "seconds_first_call": spent,
        "seconds_second_call": again,
        "rows": rows,
        "peak_bytes": peak,
        "by_hand_seconds_per_prompt": by_hand_each,
        "ours_seconds_per_prompt": again / len(prompts),
        "ours_seconds_per_prompt_in_batches_of_16": batched / 16,
        "ratio": by_hand_each / (again / len(prompts)),
        "ratio_in_batches_of_16": by_hand_each / (batched / 16),
        "gemm_flops": gemm_peak(),
    }


def alone(task: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A measurement in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="smollm2,gemma3")
    parser.add_argument(
        "--facts", type=int, default=60, help="facts, of all relations in turn, that errors are taken over"
    )
    parser.add_argument("--every-method", action="store_true", help="time every registered method too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "natural_cpu.json")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "versions": versions()}
    found["threads"] = torch.get_num_threads()
    for name in args.models.split(","):
        folder = str(args.folder / name)
        found[name] = alone(times, folder)
        print(name, json.dumps(found[name], indent=1), flush=True)
        if args.facts:
            found[name] |= alone(errors, folder, args.facts)
            print(name, json.dumps(found[name], indent=1), flush=True)
        if args.every_method:
            found[name]["methods"] = alone(every_method, folder, CHEAP)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
