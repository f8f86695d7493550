"""Methods on planted facts: which find the neurons that carry a fact, where that is known."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from kn_attrib.errors import ConfigError, check_kind, listed
from kn_attrib.evaluation.planted.plant import Target
from kn_attrib.evaluation.planted.result import PlantedResult
from kn_attrib.evaluation.planted.suite import MODELS, SHIPPED, Item, Suite, load_suite, simple_facts
from kn_attrib.evaluation.records.provenance import methods_of, stamp
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.cost import spending
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.neurons import NeuronSet
from kn_attrib.randomness import checked_seed
from kn_attrib.scoring.method_specs import Method, expanded, labelled
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.refinement import Refinement, refine_all
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.scoring.score import score
from kn_attrib.scoring.scorer import Scorer

LOG = logging.getLogger(__name__)
DIGITS = {"seconds": 5, "forwards": 1, "backwards": 1}
"""Decimals of what a method costs per prompt."""


@torch_defaults()
def benchmark(
    models: Sequence[str] = MODELS,
    methods: Sequence[str | type[Scorer] | Scorer] = ("all",),
    *,
    split: str = "test",
    folder: str | Path = SHIPPED,
    limit: int | None = None,
    max_prompts: int = 4,
    contrast_facts: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> PlantedResult:
    """Let methods look for the neurons of planted facts.

    Every plant is applied to its base model; each method scores all neurons on the planted fact's own attribution
    prompts, and its ranking and its refined set are held against the planted neurons. Decoys count as wrong.

    Parameters
    ----------
    models : base models that have planted benchmarks.
    methods : as `kn_attrib.score` takes them; ``"all"`` stands for all registered ones.
    split : ``"test"``, ``"development"`` (what a method may be tuned on) or ``"all"``.
    folder : where the plants are; those of the package if not given.
    limit : most plants of each axis and model.
    max_prompts : most attribution prompts of a fact.
    contrast_facts : further facts of the relation, for methods that compare facts with one another.
    seed : of the bootstrap.
    progress : show a progress bar.

    Returns
    -------
    PlantedResult with rows ``(model, plant, axis, fact, relation, method, metric, value)``.

    Raises
    ------
    ConfigError : a model has no planted benchmark, there is no method or one comes twice, or the split or a number is
        out of range.
    MethodError : a method is unknown or faulty.
    """
    seed = checked_seed(seed)
    _check_numbers(max_prompts, contrast_facts, limit, seed)
    if not models:
        raise ConfigError("there is no model to run the benchmark on; name one, e.g. 'zoo:bert-facts'.")
    scorers = _scorers(methods)
    suites = [load_suite(name, folder) for name in listed("models", models)]
    chosen = [(suite, _limited(suite.of(split), limit)) for suite in suites]
    run = _Run(scorers, max_prompts, contrast_facts)
    started = time.perf_counter()
    n_plants = sum(len(items) for _, items in chosen)
    with tqdm(desc="plants", total=n_plants, disable=None if progress else True) as bar:
        for suite, items in chosen:
            for item in run.suite(suite, items):
                bar.update()
                LOG.info("%s: %s is searched", suite.model, item.name)
    settings = {
        "split": split,
        "limit": limit,
        "max_prompts": max_prompts,
        "contrast_facts": contrast_facts,
        "seed": seed,
    }
    manifest = {
        "models": [_record(suite, items) | {"products": run.products[suite.model]} for suite, items in chosen],
        "settings": settings,
        "methods": run.records(),
        **stamp(started),
    }
    return PlantedResult(pd.DataFrame(run.rows), manifest)


def _check_numbers(max_prompts: int, contrast_facts: int, limit: int | None, seed: int) -> None:
    for name, value, hint in (
        ("max_prompts", max_prompts, int),
        ("contrast_facts", contrast_facts, int),
        ("limit", limit, int | None),
        ("seed", seed, int),
    ):
        check_kind(name, value, hint)
    for name, value, least in (
        ("max_prompts", max_prompts, 1),
        ("contrast_facts", contrast_facts, 0),
        ("limit", limit, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}; expected at least {least}.")


def _record(suite: Suite, items: Sequence[Item]) -> dict[str, Any]:
    """What the manifest says of a base model."""
    return {"name": suite.model, "sha256": suite.sha256, "seed": suite.about["seed"], "plants": len(items)}


def _scorers(methods: Sequence[str | type[Scorer] | Scorer]) -> dict[str, Scorer]:
    """Scorers by label: the text given, so that its parameters can be seen, else as `labelled` says."""
    several = expanded(listed("methods", methods))
    given = [Method(make_scorer(each), label=each if isinstance(each, str) else "") for each in several]
    return {label: method.scorer for label, method in labelled(given).items()}


def _limited(items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first few plants of each axis."""
    taken: Counter[str] = Counter()
    chosen = []
    for item in items:
        taken[item.axis] += 1
        if limit is None or taken[item.axis] <= limit:
            chosen.append(item)
    return chosen


def found_metrics(scores: NeuronScores, planted: NeuronSet, refinement: Refinement) -> dict[str, float]:
    """How well the scores of one fact find its planted neurons.

    Returns
    -------
    ``average_precision`` of the scores averaged over prompts; ``recall_at_k`` with as many neurons as are planted;
    ``precision`` and ``recall`` of the refined set (precision 0 if it is empty); ``rank`` of the first planted neuron,
    ties counted against the method.
    """
    mean = scores.values.double().mean(0)  # noqa: PD011  # a tensor
    labels = np.zeros(tuple(mean.shape), dtype=bool)
    for neuron in planted:
        labels[neuron] = True
    values = mean.numpy().ravel()
    wanted = labels.ravel()
    refined = refine_all(scores, refinement)[scores.fact_ids[0]]
    hits = len(refined & planted)
    return {
        "average_precision": float(average_precision_score(wanted, values)),
        "recall_at_k": len(scores.top_k(len(planted)) & planted) / len(planted),
        "precision": hits / max(1, len(refined)),
        "recall": hits / len(planted),
        "rank": 1.0 + float(np.sum(values[~wanted] >= values[wanted].max())),
        "refined_size": float(len(refined)),
    }


@dataclass
class _Run:
    """A benchmark in progress."""

    scorers: dict[str, Scorer]
    max_prompts: int
    contrast_facts: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, dict[str, float]] = field(default_factory=dict)
    products: dict[str, dict[str, str | int]] = field(default_factory=dict)
    prompts: int = 0

    def suite(self, suite: Suite, items: Sequence[Item]) -> Iterator[Item]:
        """Run all methods on the plants of one base model; yields each plant when it is done."""
        model = suite.base()
        facts = simple_facts(load_facts("world"))
        for item in items:
            with item.plant.applied(model):
                for target in item.plant.targets:
                    self._target(model, item, target, self._contrast(model, item, target, facts))
            yield item
        self.products[suite.model] = model.execution.products_so_far()

    def _contrast(self, model: NeuronModel, item: Item, target: Target, facts: Sequence[Fact]) -> list[Fact]:
        """The next facts of the relation with another answer and a subject that nothing was planted for."""
        planted = {t.fact.subject for t in item.plant.targets}
        near = [f for f in facts if f.relation == target.fact.relation]
        near = [f for f in near if f.subject not in planted and f.answer != target.fact.answer]
        # Not always the same few: start at the place that the fact's own subject would have.
        start = sum(f.subject < target.fact.subject for f in near)
        chosen = (near[start:] + near[:start])[: self.contrast_facts]
        return [_trimmed(model, f, self.max_prompts) for f in chosen]

    def _target(self, model: NeuronModel, item: Item, target: Target, contrast: Sequence[Fact]) -> None:
        """Let all methods look for the neurons of one planted fact."""
        fact = _trimmed(model, target.fact, self.max_prompts)
        self.prompts += len(fact.prompts)
        for label, scorer in self.scorers.items():
            with spending(model.execution.cost, self.cost.get(label)) as self.cost[label]:
                scores = score(model, fact, scorer, contrast=contrast)
            found = found_metrics(scores, target.neurons, Refinement(threshold=scorer.threshold))
            common = {
                "model": model.name,
                "plant": item.name,
                "axis": item.axis,
                "fact": fact.id,
                "relation": fact.relation,
                "method": label,
            }
            self.rows += [common | {"metric": metric, "value": value} for metric, value in found.items()]

    def records(self) -> list[dict[str, Any]]:
        """Each method with its parameters and what it cost per prompt."""
        cost = {label: self._per_prompt(spent) for label, spent in self.cost.items()}
        return methods_of(self.scorers, cost)

    def _per_prompt(self, spent: Mapping[str, float]) -> dict[str, float]:
        return {what: round(amount / self.prompts, DIGITS[what]) for what, amount in spent.items()}


def _trimmed(model: NeuronModel, fact: Fact, most: int) -> Fact:
    """The fact with the first few of its prompts that can be put to the model."""
    return replace(fact, prompts=tuple(text.text for text in model.encode(fact).texts[:most]))
