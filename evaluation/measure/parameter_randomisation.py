"""The parameter-randomisation check: scores that survive it do not depend on what the model has learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from kn_attrib.facts.facts import Fact
from kn_attrib.models.anatomy import find_blocks
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.randomness import checked_seed
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.score import score


@contextmanager
def randomised(model: NeuronModel, layers: Sequence[int], seed: int = 0) -> Iterator[None]:
    """While active, every weight tensor of some layers has its entries shuffled; restored bit by bit on any exit.

    Parameters
    ----------
    layers : whose blocks' parameters are shuffled, each within itself: its distribution stays, what it has learnt goes.
    seed : of the shuffles.
    """
    generator = torch.Generator().manual_seed(checked_seed(seed))
    blocks = find_blocks(model)
    kept: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        for layer in layers:
            for parameter in blocks[layer].parameters():
                kept.append((parameter, parameter.detach().clone()))
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                with torch.no_grad():
                    parameter.copy_(parameter.flatten()[order].view_as(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, before in reversed(kept):
                parameter.copy_(before)


@torch_defaults()
def parameter_randomisation(
    model: NeuronModel, facts: Sequence[Fact], method: Any, seed: int = 0, **options: Any
) -> pd.DataFrame:
    """Spearman correlation of a method's scores before and after randomising layers from the top down.

    Parameters
    ----------
    model, facts, method : as in `score`.
    seed : of the shuffles.
    options : of `score`, such as ``contrast``.

    Returns
    -------
    One row per number of randomised layers: ``layers, spearman`` (mean over facts), ``low, high`` (its range), and the
    ``seed`` in ``attrs``. A method whose correlation stays near 1 does not look at the model.

    Reference
    ---------
    Adebayo et al. 2018, *Sanity Checks for Saliency Maps*.
    """
    check_model(model)
    before = score(model, facts, method, **options)
    rows = []
    for count in range(1, model.n_layers + 1):
        with randomised(model, range(model.n_layers - count, model.n_layers), seed):
            after = score(model, facts, method, **options)
        found = [_correlation(before, after, fact) for fact in before.fact_ids]
        rows.append({"layers": count, "spearman": np.mean(found), "low": np.min(found), "high": np.max(found)})
    frame: pd.DataFrame = pd.DataFrame(rows)
    frame.attrs["seed"] = checked_seed(seed)
    return frame


def _correlation(before: NeuronScores, after: NeuronScores, fact: str) -> float:
    """Spearman correlation of a fact's mean scores."""
    return float(stats.spearmanr(_mean_scores(before, fact), _mean_scores(after, fact)).statistic)


def _mean_scores(scores: NeuronScores, fact: str) -> torch.Tensor:
    own: torch.Tensor = scores.for_fact(fact).values  # noqa: PD011  # not a data frame
    return own.double().mean(0).flatten()
