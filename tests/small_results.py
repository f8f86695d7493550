"""Small results of every kind, for tests of what results have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kn_attrib import Comparison, FactSet, NeuronModel, compare
from kn_attrib.evaluation import (
    Factor,
    Grid,
    PlantedResult,
    PromptTypes,
    ProtocolResult,
    ReadingResult,
    Trace,
    benchmark,
    compare_grid,
    prompt_types,
    read,
    trace,
)
from kn_attrib.evaluation.protocols.deletion import DeletionProtocol, DeletionSettings
from kn_attrib.evaluation.protocols.injection import InjectionProtocol, InjectionSettings

METHODS = ("activation", "random")
FIRING_TEXTS = (
    "the capital of Italy is Rome",
    "Rome is the capital of Italy .",
    "people of Italy capital city is Rome",
    "the people of Italy lies in Paris .",
    "in the city of Germany is Rome",
    "the capital of France is Paris .",
    "people of France lies in Berlin",
    "the country Germany capital is Berlin .",
    "Germany is in Paris .",
    "the capital city of Spain is Madrid .",
    "Spain lies in Berlin",
    "the people city is Madrid",
    "the city is Berlin",
    "capital is Paris",
)
"""Texts in which all groups of all facts are found."""


def small_comparison(model: NeuronModel, facts: FactSet, **settings: Any) -> Comparison:
    chosen: dict[str, Any] = {"budgets": (1, 5), "keep": ("unknown",), "progress": False, **settings}
    return compare(model, facts, METHODS, **chosen)


def small_grid(model: NeuronModel, facts: FactSet, **settings: Any) -> Grid:
    factors = [Factor("threshold", (0.1, 0.5)), Factor("max_prompts", (1, 2))]
    chosen: dict[str, Any] = {"budgets": (1,), "keep": ("unknown",), "controls": (), "progress": False, **settings}
    return compare_grid(model, facts, METHODS, factors, **chosen)


def small_injection(model: NeuronModel, facts: FactSet, seed: int = 0) -> ProtocolResult:
    settings = InjectionSettings(known_share=1.01, ratios=(0.3,), information="unknown", rate=0.1, seed=seed)
    return InjectionProtocol(model, facts, METHODS, settings, progress=False).run()


def small_deletion(model: NeuronModel, facts: FactSet, seed: int = 0) -> ProtocolResult:
    settings = DeletionSettings(known_share=0.0, ratios=(0.05, 0.5), sentences=2, seed=seed)
    return DeletionProtocol(model, facts, METHODS, settings, progress=False).run()


def small_reading(model: NeuronModel, facts: FactSet, seed: int = 0) -> ReadingResult:
    return read(model, facts, METHODS, known_share=0.0, top=3, budget=2, seed=seed, progress=False)


def small_prompt_types(model: NeuronModel, facts: FactSet, texts: Path, **settings: Any) -> PromptTypes:
    texts.write_text("\n".join(FIRING_TEXTS), encoding="utf-8")
    chosen: dict[str, Any] = {"known_share": 0.0, "budget": 2, "reference": 8, "progress": False, **settings}
    return prompt_types(model, facts, METHODS, texts=texts, **chosen)


def small_trace(model: NeuronModel, facts: FactSet, **settings: Any) -> Trace:
    chosen: dict[str, Any] = {"known_share": 0.0, "samples": 2, "k": 2, "window": 2, "progress": False, **settings}
    return trace(model, facts, METHODS, **chosen)


def small_benchmark(seed: int = 0) -> PlantedResult:
    return benchmark(["zoo:bert-facts"], METHODS, limit=1, max_prompts=1, contrast_facts=0, seed=seed, progress=False)
