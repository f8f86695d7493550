"""`probe` and `probeless` against the PyPI package neurox, on the same activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from kn_attrib import NeuronModel, Pool
from kn_attrib.facts.facts import FactSet
from kn_attrib.methods import Probe, Probeless
from kn_attrib.scoring.contrast_pool import pool_of

# neurox 1.0.9 pins torch 1.8.1, numpy 1.19.5 and other versions of 2021, so no extra can ask for it. To run this:
# pip install --no-deps neurox imbalanced-learn sklearn-compat
WHY = "neurox is not here: its pinned requirements exclude ours, so it is installed by hand with --no-deps"


@pytest.fixture
def pool(tiny: NeuronModel, facts: FactSet) -> Pool:
    return pool_of(tiny, tiny.encode(facts).prompts)


def samples(pool: Pool, label: Any) -> tuple[Any, Any]:
    """Activations ``[query, neuron]`` and the number of each query's class, the first fact's being 0."""
    classes = pool.classes(pool.facts[0], label)
    order = [i for indices in classes.values() for i in indices]
    numbers = np.repeat(np.arange(len(classes)), [len(indices) for indices in classes.values()])
    return pool.activations[order].flatten(1).numpy(), numbers


def agreement(ranking: list[int], scores: Tensor) -> float:
    """Rank correlation of a ranking, best first, with scores."""
    places = np.empty(len(ranking))
    places[ranking] = np.arange(len(ranking))
    return float(spearmanr(-places, scores.flatten().numpy()).statistic)


@pytest.mark.parametrize("label", ["fact", "answer"])
def test_probeless_ranks_as_neurox(tiny: NeuronModel, pool: Pool, label: Any) -> None:
    neurox = pytest.importorskip("neurox.interpretation.probeless", reason=WHY)
    features, numbers = samples(pool, label)
    scores = Probeless(label=label).score_facts(tiny, pool)[pool.facts[0].id]
    assert agreement(neurox.get_neuron_ordering(features, numbers), scores) >= 0.999


def test_probeless_of_a_classs_own_pairs_ranks_as_neurox(tiny: NeuronModel, pool: Pool) -> None:
    neurox = pytest.importorskip("neurox.interpretation.probeless", reason=WHY)
    features, numbers = samples(pool, "answer")
    names = {name: i for i, name in enumerate(pool.classes(pool.facts[0], "answer"))}
    for fact in pool.facts:
        scores = Probeless(label="answer", pairs="own").score_facts(tiny, pool)[fact.id]
        ranking = neurox.get_neuron_ordering_for_tag(features, numbers, names, fact.answer)
        assert agreement(ranking, scores) >= 0.999


def test_probe_ranks_as_neurox(tiny: NeuronModel, pool: Pool) -> None:
    """Trained to the same optimum, the two weigh neurons alike.

    neurox minimises the mean loss + λ₁ Σ|W| + λ₂ ‖W‖ over both classes' weights (the norm is not squared), which has
    its minimum at W = (−w/2, w/2), w ours, if λ₁ = ρ/(C n) and λ₂ = √2 (1 − ρ) ‖w‖/(C n).
    """
    neurox = pytest.importorskip("neurox.interpretation.linear_probe", reason=WHY)
    features, numbers = samples(pool, "fact")
    ratio, strength = 0.02, 1.0
    scorer = Probe(l1_ratio=ratio, strength=strength, tolerance=1e-7, max_iter=20000)
    scores = scorer.score_facts(tiny, pool)[pool.facts[0].id]
    standard = (features - features.mean(0)) / features.std(0)
    torch.manual_seed(0)
    probe = neurox.train_logistic_regression_probe(
        standard.astype(np.float32), numbers, lambda_l1=ratio / strength / len(numbers),
        lambda_l2=math.sqrt(2) * (1 - ratio) * float(scores.norm()) / strength / len(numbers),
        num_epochs=2000, batch_size=len(numbers), learning_rate=0.003,
    )  # fmt: skip
    weights = probe.linear.weight.detach()
    theirs = (weights[1] - weights[0]).abs()
    assert spearmanr(theirs.numpy(), scores.flatten().numpy()).statistic >= 0.95
    assert torch.allclose(theirs.double(), scores.flatten(), atol=0.02 * float(scores.max()))
