"""Seconds per prompt for the scores of every neuron: the peer, a Captum user's own code, plain and wave, side by side.

Models are random but have the shapes of BERT-base, GPT-2 small and a Llama of 160 million weights. Slow contestants are
measured on some layers only (each layer costs them the same) and scaled up; the table says so. Run with `make bench`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from captum import attr
from shapes import SHAPES, make_batch, make_model, text_of
from torch import Tensor

from kn_attrib import NeuronModel
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.methods import Ablation, IntegratedGradients
from kn_attrib.models.allocator import keep_freed_memory
from kn_attrib.models.answers import objective_value
from kn_attrib.models.compute import Compute, computing
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.store import versions

PEER_STEPS, PEER_BATCH = 20, 20


@dataclass
class Row:
    """One measurement: seconds per prompt for all layers."""

    work: str
    shape: str
    tokens: int
    prompts: int
    contestant: str
    seconds: float
    measured_on: str = "all layers"
    ratio: float = 0.0
    error: float | None = None


def seconds_of(run: Callable[[], object], device: str, repeats: int) -> float:
    """Least time of some repeats: CPU time of this process on CPUs (others may be at work), wall time on GPUs."""
    best = float("inf")
    for _ in range(repeats):
        clock = time.perf_counter if device == "cuda" else time.process_time
        start = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


def naive_captum(model: NeuronModel, batch: Batch, layer: int) -> Tensor:
    """What a Captum user writes: integrated gradients on a full forward with the activation replaced, one layer."""
    ids, position, answer = batch.input_ids[:1], int(batch.positions[0]), batch.answers[:1]

    def forward(rows: Tensor) -> Tensor:
        def put(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            vectors = inputs[0].clone()
            vectors[:, position] = rows
            return (vectors,)

        handle = model.ffn_outputs[layer].register_forward_pre_hook(put)
        try:
            logits = model.model(ids.expand(len(rows), -1)).logits[:, position]
        finally:
            handle.remove()
        return objective_value(logits, answer.expand(len(rows)), "prob")

    captum = attr.IntegratedGradients(forward)
    clean = model.record(batch)[:1, layer]
    scores: Tensor = captum.attribute(clean, n_steps=PEER_STEPS, method="riemann_left")
    return scores


def peer_of(model: NeuronModel, shape: str) -> Any:
    """The PyPI package knowledge-neurons 0.0.2 on the same model."""
    from knowledge_neurons import KnowledgeNeurons

    return KnowledgeNeurons(model.model, model.tokenizer, model_type=shape, device=str(model.device))


def score_with(model: NeuronModel, batch: Batch, scorer: Scorer, compute: Compute) -> Any:
    """Scores of a batch under some settings."""
    model.execution.settings = compute
    with computing(compute.precision, model.model.get_output_embeddings()):
        return scorer.score(model, batch)


def attribution(shape: str, tokens: int, prompts: int, layers: list[int], args: argparse.Namespace) -> list[Row]:
    """All contestants at integrated gradients on one workload; ratios are to the first of them."""
    model = make_model(shape, args.device)
    batch, one = make_batch(model, tokens, prompts), make_batch(model, tokens, 1)
    scale, part = model.n_layers / len(layers), f"{len(layers)} of {model.n_layers} layers"
    rows: list[Row] = []

    def add(name: str, run: Callable[[], object], n: int, factor: float = 1.0, where: str = "all layers") -> None:
        repeats = 1 if factor > 1 else args.repeats
        rows.append(Row("integrated gradients", shape, tokens, n, name, 0.0, where))
        rows[-1].seconds = seconds_of(run, args.device, repeats) * factor / n
        print(f"  {shape} {tokens} tokens {name} ({n} prompts): {rows[-1].seconds:.3f} s", flush=True)

    found: dict[str, Tensor] = {}
    if shape in ("bert", "gpt2"):
        peer, text, answer = peer_of(model, shape), *text_of(model, one)

        def run_peer() -> None:
            found["peer"] = torch.stack(
                [peer.get_scores_for_layer(text, answer, i, PEER_BATCH, PEER_STEPS).flatten() for i in layers]
            )

        add("peer, 20 steps", run_peer, 1, scale, part)
    if tokens <= 64:
        add("Captum by hand, 20 steps", lambda: [naive_captum(model, one, i) for i in layers], 1, scale, part)
        plain = Compute("plain")
        if tokens <= 12:
            add("plain, adaptive", lambda: score_with(model, one, IntegratedGradients(), plain), 1)
    for precision in args.precisions:
        compute = Compute(precision=precision)
        for data in (one, batch) if prompts > 1 else (one,):
            score_with(model, data, IntegratedGradients(steps=1), compute)  # the guards, once

            def run(data: Batch = data, compute: Compute = compute) -> None:
                found[f"wave {compute.precision}"] = score_with(model, data, IntegratedGradients(), compute).values

            add(f"wave, adaptive, {precision}", run, len(data))
    if tokens <= 12 and args.device == "cpu":
        _errors(rows, found, model, shape, one, layers, args)
    for row in rows:
        row.ratio = rows[0].seconds / row.seconds
    return rows


def _errors(
    rows: list[Row], found: dict[str, Tensor], model: NeuronModel, shape: str, one: Batch, layers: list[int],
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Relative L2 errors on the first prompt's measured layers against many Gauss nodes in float64."""
    from kn_attrib.forward.rows import Rows
    from kn_attrib.methods.integrated_gradients import integrate

    exact_model = make_model(shape, args.device, torch.float64)
    function = objective_function(exact_model, one)
    some = Rows.of(function.activations)[torch.tensor(layers)]
    exact, _ = integrate(function, some, "gausslegendre", args.reference)
    for row in rows:
        key = "wave " + row.contestant.rsplit(" ", 1)[-1] if row.contestant.startswith("wave") else "peer"
        # The peer reads GPT-2's neurons before the activation function: its numbers are other numbers.
        if key in found and (key != "peer" or (shape == "bert" and row.contestant.startswith("peer"))):
            values = (found[key] if key == "peer" else found[key][0, layers]).detach()
            row.error = float((values.double() - exact).norm() / exact.norm())


def ablation(shape: str, tokens: int, args: argparse.Namespace) -> list[Row]:
    """All single-neuron ablations: in batches of 32 full forwards by hand, and by the wave, on samples of neurons."""
    model = make_model(shape, args.device)
    one = make_batch(model, tokens, 1)
    total = model.n_layers * model.n_neurons
    clean = model.record(one)
    n_hand, share = 64, args.ablation_share

    def by_hand() -> None:
        def put(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            vectors = inputs[0].clone()
            vectors[torch.arange(32), int(one.positions[0]), torch.arange(32)] = 0
            return (vectors,)

        for _ in range(n_hand // 32):
            handle = model.ffn_outputs[0].register_forward_pre_hook(put)
            with torch.no_grad():
                model.model(one.input_ids.expand(32, -1)).logits[:, -1].softmax(-1)
            handle.remove()

    rows = [Row("every neuron ablated", shape, tokens, 1, "by hand, batches of 32", 0.0, f"{n_hand} neurons")]
    rows[0].seconds = seconds_of(by_hand, args.device, args.repeats) * total / n_hand
    chosen = torch.linspace(0, total - 1, int(share * total)).long()
    layers, neurons = chosen // model.n_neurons, chosen % model.n_neurons
    for precision in args.precisions:
        model.execution.settings = Compute(precision=precision)
        function = objective_function(model, one, "logodds")

        def waves(function: Any = function, precision: str = precision) -> None:
            with computing(precision, model.model.get_output_embeddings()), torch.no_grad():
                for part in torch.arange(len(chosen)).split(Ablation().max_rows):
                    values = clean[0, layers[part]].clone()
                    values[torch.arange(len(part)), neurons[part]] = 0
                    function(values, layers[part], torch.zeros_like(part))

        waves()
        row = Row("every neuron ablated", shape, tokens, 1, f"wave, {precision}", 0.0, f"{len(chosen)} neurons")
        row.seconds = seconds_of(waves, args.device, args.repeats) * total / len(chosen)
        rows.append(row)
    for row in rows:
        row.ratio = rows[0].seconds / row.seconds
        print(f"  {shape} ablation {row.contestant}: {row.seconds:.1f} s", flush=True)
    return rows


def machine() -> str:
    """The processor's (and GPU's) name."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} thread{gpu}"


def table(rows: list[Row], where: str, reference: int) -> str:
    """The measurements as a Markdown table."""
    lines = [
        f"# Speed, side by side on {where}",
        "",
        "Seconds per prompt for all layers (CPU time of the process, least of the repeats; on GPUs wall time). Ratios",
        "are to the first contestant of the same workload in the same run; the machine was shared with other work, so",
        f"read ratios, not seconds. Errors: relative L2 on the measured layers against Gauss-{reference} in float64.",
        "",
        "| work | shape | tokens | prompts a call | contestant | measured on | s / prompt | ratio | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        error = "–" if r.error is None else f"{r.error:.1e}"
        lines.append(
            f"| {r.work} | {r.shape} | {r.tokens} | {r.prompts} | {r.contestant} | {r.measured_on} | {r.seconds:.3g} "
            f"| {r.ratio:.3g}× | {error} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--tokens", default="12,64,256")
    parser.add_argument("--prompts", default="8,16,16", help="prompts a call, one number per shape of the defaults")
    parser.add_argument("--precisions", default="")
    parser.add_argument("--layers", default="1,8", help="layers on which slow contestants are measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reference", type=int, default=200, help="Gauss nodes of the reference")
    parser.add_argument("--ablation-share", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    faster = "tf32" if args.device == "cuda" else "medium"
    args.precisions = args.precisions.split(",") if args.precisions else ["highest", faster]
    torch.set_num_threads(1)
    keep_freed_memory()  # for all contestants alike
    prompts = dict(zip(SHAPES, map(int, args.prompts.split(",")), strict=True))
    layers = [int(layer) for layer in args.layers.split(",")]
    rows: list[Row] = []
    for shape in args.shapes.split(","):
        for tokens in map(int, args.tokens.split(",")):
            # Beyond 12 tokens the peer takes minutes a prompt: one layer, and one prompt a call.
            long = tokens > 12
            rows += attribution(shape, tokens, 1 if long else prompts[shape], layers[:1] if long else layers, args)
            save(rows, args)
        if shape != "bert":
            rows += ablation(shape, 12, args)
            save(rows, args)


def save(rows: list[Row], args: argparse.Namespace) -> None:
    """Write what is measured so far: a long run may be stopped."""
    args.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "command": " ".join(sys.argv[1:]), "versions": versions(),
              "rows": [asdict(row) for row in rows]}  # fmt: skip
    name = f"speed_{args.device}"
    (args.out / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (args.out / f"{name}.md").write_text(table(rows, machine(), args.reference), encoding="utf-8")


if __name__ == "__main__":
    main()
