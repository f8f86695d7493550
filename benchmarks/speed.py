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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from captum import attr
from shapes import SHAPES, make_batch, make_model, text_of
from torch import Tensor

from kn_attrib import NeuronModel
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.row_objective import RowObjective, objective_function
from kn_attrib.forward.rows import Rows
from kn_attrib.methods import Ablation, IntegratedGradients
from kn_attrib.models.allocator import keep_freed_memory
from kn_attrib.models.answers import objective_value
from kn_attrib.models.compute import Compute, computing
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.store import versions
from kn_attrib.techniques.path_integrals import integrate

PEER_STEPS, PEER_BATCH = 20, 20
BY_HAND = 64
"""Neurons that are ablated by hand."""


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
    ids, answer = batch.input_ids[:1], batch.answers[:1]
    position = int(batch.positions[0])

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


@dataclass(frozen=True)
class Contestant:
    """A way to compute scores.

    Attributes
    ----------
    name : what the table calls it.
    run : computes them.
    prompts : of how many prompts.
    layers : on these alone; None for all.
    """

    name: str
    run: Callable[[], object]
    prompts: int = 1
    layers: list[int] | None = None


def slow_contestants(
    model: NeuronModel, shape: str, one: Batch, layers: list[int], found: dict[str, Tensor]
) -> Iterator[Contestant]:
    """Others' code and the plain path on one prompt, each where it does not take all day; adds scores to ``found``."""
    tokens = one.input_ids.shape[1]
    if shape in ("bert", "gpt2"):
        peer = peer_of(model, shape)
        text, answer = text_of(model, one)

        def run_peer() -> None:
            scores = [peer.get_scores_for_layer(text, answer, layer, PEER_BATCH, PEER_STEPS) for layer in layers]
            found["peer"] = torch.stack([of_layer.flatten() for of_layer in scores])

        yield Contestant("peer, 20 steps", run_peer, layers=layers)
    if tokens <= 64:

        def run_captum() -> None:
            for layer in layers:
                naive_captum(model, one, layer)

        yield Contestant("Captum by hand, 20 steps", run_captum, layers=layers)
    if tokens <= 12:
        yield Contestant("plain, adaptive", partial(score_with, model, one, IntegratedGradients(), Compute("plain")))


def waves(
    model: NeuronModel, batches: list[Batch], precisions: list[str], found: dict[str, Tensor]
) -> Iterator[Contestant]:
    """The wave at each precision, on one prompt and on more; adds scores to ``found``."""
    for precision in precisions:
        compute = Compute(precision=precision)
        for batch in batches:
            score_with(model, batch, IntegratedGradients(steps=1), compute)  # the guards, once

            def run(batch: Batch = batch, compute: Compute = compute) -> None:
                scores = score_with(model, batch, IntegratedGradients(), compute)
                found[f"wave {compute.precision}"] = scores.values

            yield Contestant(f"wave, adaptive, {precision}", run, len(batch))


def attribution(shape: str, tokens: int, prompts: int, layers: list[int], args: argparse.Namespace) -> list[Row]:
    """All contestants at integrated gradients on one workload; ratios are to the first of them."""
    model = make_model(shape, args.device)
    one = make_batch(model, tokens, 1)
    batches = [one, make_batch(model, tokens, prompts)] if prompts > 1 else [one]
    rows: list[Row] = []
    found: dict[str, Tensor] = {}
    contestants = chain(
        slow_contestants(model, shape, one, layers, found),
        waves(model, batches, args.precisions, found),
    )
    for each in contestants:
        row = Row("integrated gradients", shape, tokens, each.prompts, each.name, 0.0)
        scale = 1.0
        if each.layers is not None:
            row.measured_on = f"{len(each.layers)} of {model.n_layers} layers"
            scale = model.n_layers / len(each.layers)
        repeats = 1 if scale > 1 else args.repeats
        row.seconds = seconds_of(each.run, args.device, repeats) * scale / each.prompts
        print(f"  {shape} {tokens} tokens {each.name} ({each.prompts} prompts): {row.seconds:.3f} s", flush=True)
        rows.append(row)
    if tokens <= 12 and args.device == "cpu":
        exact = exact_scores(shape, one, layers, args)
        for row in rows:
            row.error = _error(row, found, exact, layers)
    for row in rows:
        row.ratio = rows[0].seconds / row.seconds
    return rows


def exact_scores(shape: str, one: Batch, layers: list[int], args: argparse.Namespace) -> Tensor:
    """Integrated gradients of the first prompt on some layers by many Gauss nodes in float64."""
    model = make_model(shape, args.device, torch.float64)
    function = objective_function(model, one)
    rows = Rows.of(function.activations)[torch.tensor(layers)]
    exact, _ = integrate(function, rows, "gausslegendre", args.reference)
    return exact


def _error(row: Row, found: dict[str, Tensor], exact: Tensor, layers: list[int]) -> float | None:
    """Relative L2 error of a contestant whose scores were kept."""
    if row.contestant.startswith("wave"):
        precision = row.contestant.rsplit(" ", 1)[-1]
        values = found[f"wave {precision}"][0, layers]
    # The peer reads GPT-2's neurons before the activation function: its numbers are other numbers.
    elif row.contestant.startswith("peer") and row.shape == "bert":
        values = found["peer"]
    else:
        return None
    return float((values.detach().double() - exact).norm() / exact.norm())


def ablation(shape: str, tokens: int, args: argparse.Namespace) -> list[Row]:
    """All single-neuron ablations: in batches of 32 full forwards by hand, and by the wave, on samples of neurons."""
    model = make_model(shape, args.device)
    one = make_batch(model, tokens, 1)
    total = model.n_layers * model.n_neurons
    clean = model.record(one)
    by_hand = Row("every neuron ablated", shape, tokens, 1, "by hand, batches of 32", 0.0, f"{BY_HAND} neurons")
    seconds = seconds_of(partial(ablate_by_hand, model, one), args.device, args.repeats)
    by_hand.seconds = seconds * total / BY_HAND
    rows = [by_hand]
    chosen = torch.linspace(0, total - 1, int(args.ablation_share * total)).long()
    layers, neurons = chosen // model.n_neurons, chosen % model.n_neurons
    for precision in args.precisions:
        model.execution.settings = Compute(precision=precision)
        function = objective_function(model, one, "logodds")

        def by_wave(function: RowObjective = function, precision: str = precision) -> None:
            with computing(precision, model.model.get_output_embeddings()), torch.no_grad():
                for part in torch.arange(len(chosen)).split(Ablation().max_rows):
                    values = clean[0, layers[part]].clone()
                    values[torch.arange(len(part)), neurons[part]] = 0
                    function(values, layers[part], torch.zeros_like(part))

        by_wave()
        row = Row("every neuron ablated", shape, tokens, 1, f"wave, {precision}", 0.0, f"{len(chosen)} neurons")
        row.seconds = seconds_of(by_wave, args.device, args.repeats) * total / len(chosen)
        rows.append(row)
    for row in rows:
        row.ratio = by_hand.seconds / row.seconds
        print(f"  {shape} ablation {row.contestant}: {row.seconds:.1f} s", flush=True)
    return rows


def ablate_by_hand(model: NeuronModel, one: Batch) -> None:
    """The first neurons of a layer in batches of full forwards, each row with a neuron of its own at zero."""

    def put(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        vectors = inputs[0].clone()
        vectors[torch.arange(32), int(one.positions[0]), torch.arange(32)] = 0
        return (vectors,)

    for _ in range(BY_HAND // 32):
        handle = model.ffn_outputs[0].register_forward_pre_hook(put)
        with torch.no_grad():
            model.model(one.input_ids.expand(32, -1)).logits[:, -1].softmax(-1)
        handle.remove()


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
            n_prompts = 1 if long else prompts[shape]
            rows += attribution(shape, tokens, n_prompts, layers[:1] if long else layers, args)
            save(rows, args)
        if shape != "bert":
            rows += ablation(shape, 12, args)
            save(rows, args)


def save(rows: list[Row], args: argparse.Namespace) -> None:
    """Write what is measured so far: a long run may be stopped."""
    args.out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine(),
        "command": " ".join(sys.argv[1:]),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    name = f"speed_{args.device}"
    (args.out / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (args.out / f"{name}.md").write_text(table(rows, machine(), args.reference), encoding="utf-8")


if __name__ == "__main__":
    main()
