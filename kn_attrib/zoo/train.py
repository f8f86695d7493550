"""Train the shipped models: ``python -m kn_attrib.zoo.train [NAME ...] [--out DIR] [--seed N]``."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers.utils import logging

from kn_attrib.errors import ModelError, unknown
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.allocator import keep_freed_memory
from kn_attrib.models.shipped import MODELS
from kn_attrib.store import write_json, write_text
from kn_attrib.zoo.card import card_of, readme_of
from kn_attrib.zoo.recipes import RECIPES
from kn_attrib.zoo.training_loop import train

PROCESSES = 2
READABLE = 0o644


def build(name: str, out: Path = MODELS, seed: int = 0) -> Path:
    """Train one model, measure it and write its folder; whatever was there is replaced at the end.

    Parameters
    ----------
    name : of a recipe.
    out : folder that gets a folder called ``name``.
    seed : decides everything random.

    Raises
    ------
    ModelError : there is no such recipe.
    """
    if name not in RECIPES:
        raise ModelError(unknown("recipe", name, RECIPES))
    keep_freed_memory()
    # One thread: sums are then always made in the same order, and two models train side by side.
    torch.set_num_threads(1)
    # Not "medium": measured twice as slow here (188 against 87 ms a step), most of it in fused attention.
    torch.set_float32_matmul_precision("highest")
    logging.disable_progress_bar()
    recipe, facts = RECIPES[name], load_facts("world")
    model, tokenizer = train(name, recipe, facts, seed)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}.") as temporary:
        folder = Path(temporary) / name
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        card = card_of(name, recipe, facts, seed, folder)
        write_json(folder / "card.json", card)
        write_text(folder / "README.md", readme_of(card))
        for file in folder.iterdir():
            file.chmod(READABLE)  # safetensors makes private files
        shutil.rmtree(out / name, ignore_errors=True)
        folder.rename(out / name)
    return out / name


def main() -> None:
    """Build the models named on the command line (default: all), two at a time."""
    parser = argparse.ArgumentParser(prog="python -m kn_attrib.zoo.train", description="Train the shipped models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder for the models (default: the package's)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.names:
        if name not in RECIPES:
            parser.error(unknown("recipe", name, RECIPES))
    names = given.names or list(RECIPES)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for folder in pool.map(build, names, [given.out] * len(names), [given.seed] * len(names)):
            print(folder)


if __name__ == "__main__":
    main()
