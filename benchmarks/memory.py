"""Peak memory under a budget, measured: the process's high-water mark above what the loaded model takes.

Each budget runs in a process of its own (a high-water mark never falls); all must give the same scores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from shapes import make_batch, make_model

from kn_attrib.methods import IntegratedGradients
from kn_attrib.models.allocator import keep_freed_memory
from kn_attrib.models.compute import Compute


def measure(shape: str, tokens: int, prompts: int, budget: int) -> dict[str, float]:
    """Bytes above the model at the peak of one call, and a sum that tells whether the scores are the same."""
    torch.set_num_threads(1)
    keep_freed_memory()
    model = make_model(shape)
    batch = make_batch(model, tokens, prompts)
    model.execution.settings = Compute(memory_budget=budget)
    model.record(make_batch(model, tokens, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values = IntegratedGradients(steps=20).score(model, batch).values
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"budget": budget, "peak": after - before, "scores": float(values.double().abs().sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="gpt2")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--budgets", default="500000000,1000000000,4000000000")
    parser.add_argument("--one", type=int, help="measure this budget in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.shape, args.tokens, args.prompts, args.one)))
        return
    found = []
    for budget in args.budgets.split(","):
        workload = ["--shape", args.shape, "--tokens", str(args.tokens), "--prompts", str(args.prompts)]
        command = [sys.executable, __file__, *workload, "--one", budget]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(output.splitlines()[-1])
        found.append(row)
        print(f"budget {row['budget'] / 1e9:.1f} GB: peak {row['peak'] / 1e9:.2f} GB above the model")
    args.out.write_text(json.dumps({"command": sys.argv[1:], "rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
