"""Small models, facts, scores and saved things that arguments are tried on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from conftest import bert_tokenizer, gpt2_tokenizer, tiny_bert, tiny_gpt2
from kn_attrib import FactSet, Pool, compare, facts_from_templates, load_model, score
from kn_attrib.evaluation import Factor, PlantedResult, benchmark, compare_grid
from kn_attrib.evaluation.planted.suite import load_suite

CONTRASTING = "expected_gradients(samples=1)"
"""A method that compares facts."""
SETTINGS: dict[str, Any] = {"progress": False, "known_share": 0.0}
"""Random models know nothing, and bars are for people."""


class World:
    """Small models, facts, scores and saved things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bert = load_model((tiny_bert(), bert_tokenizer()))
        self.gpt2 = load_model((tiny_gpt2(), gpt2_tokenizer()))
        capital = facts_from_templates(
            "capital",
            [("France", "Paris"), ("Italy", "Rome"), ("Germany", "Berlin", "Rome"), ("Spain", "Madrid Spain")],
            ["the capital of [X] is [Y].", "the capital city of [X] is [Y].", "[X] capital is [Y]."],
            ["the country [X] capital is [Y].", "the city of [X] is [Y]."],
        )
        people = facts_from_templates(
            "people",
            [("France", "Italy"), ("Italy", "Spain"), ("Germany", "France")],
            ["the people of [X] is [Y].", "people of [X] lies in [Y]."],
            ["[X] people is [Y]."],
        )
        self.facts = FactSet((*capital, *people))
        self.fact, self.other = self.facts[0], self.facts[1]
        self.scores = score(self.bert, self.facts[:2], "activation", keep_tokens=True)
        self.one = score(self.bert, self.fact, "activation")
        self.batch = next(iter(self.bert.batches(self.bert.encode(self.fact).prompts)))[1]
        self.pool = Pool(self.bert, self.bert.encode(self.facts).prompts)
        self.comparison = compare(self.bert, self.facts, ["activation", "random"], budgets=(1, 2), limit=3, **SETTINGS)
        self.grid = compare_grid(
            self.bert, self.facts, ["activation"], [Factor("threshold", (0.1, 0.5))], limit=3, **SETTINGS
        )
        self.numbers = 0

    def new(self, name: str = "") -> Path:
        """A path that nothing is at."""
        self.numbers += 1
        return self.folder / f"{self.numbers}" / name

    def saved(self, thing: Any, name: str = "saved") -> Path:
        """The folder or file that a thing has saved itself to."""
        path = self.new(name)
        thing.save(path)
        return path

    def plants(self) -> Path:
        """A folder with a few shipped plants."""
        whole = load_suite("zoo:gpt2-facts")
        one = [item for item in whole.items if item.axis == "k=1"]
        chosen = [*(i for i in one if i.split == "test")][:2] + [*(i for i in one if i.split == "development")][:1]
        chosen.append(next(item for item in whole.items if item.axis != "k=1" and item.split == "test"))
        return dataclasses.replace(whole, items=tuple(chosen)).save(self.new())

    def planted(self) -> PlantedResult:
        """Two methods on these plants."""
        methods = ["activation", "random"]
        return benchmark(["zoo:gpt2-facts"], methods, split="all", folder=self.plants(), max_prompts=1, progress=False)
