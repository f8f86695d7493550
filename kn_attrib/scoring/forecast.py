"""How long a method is going to take, said before it starts: of methods that ask for every neuron by itself."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence

import torch

from kn_attrib.facts.prompts import Prompt
from kn_attrib.forward.row_objective import objective_function
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.scorer import Scorer

LOG = logging.getLogger(__name__)
LONG = 600.0
"""Seconds from which on a run is said to be long."""
TIMED, WORTH_TIMING = 1024, 100_000
"""Rows that are timed, and rows of a run below which nothing is: they never take long."""

MOST_TRIES = 6


class LongRunWarning(UserWarning):
    """A method is going to take long."""


def seconds_needed(model: NeuronModel, scorer: Scorer, prompts: Sequence[Prompt]) -> float:
    """Estimated seconds: rows through the model, timed on a few of them; 0 where their number is small or unknown.

    Methods whose number of rows does not grow with the number of neurons are not estimated.
    """
    rows = scorer.rows_per_prompt(model) * len(prompts)
    if rows < WORTH_TIMING:
        return 0.0
    _, batch = next(iter(model.batches(prompts[:1])))
    function = objective_function(model, batch)
    layers = torch.arange(TIMED, device=model.device) * model.n_layers // TIMED
    first = torch.zeros_like(layers)
    activations = function.activations[first, layers]
    shortest = float("inf")
    for tried in range(MOST_TRIES):
        start = time.perf_counter()
        function.evaluate(activations, layers, first, gradient=False)[0].sum().item()
        shortest = min(shortest, time.perf_counter() - start)
        # A busy moment must not pass for a long run: what looks long is timed again.
        if tried and rows * shortest / TIMED < LONG:
            break
    return rows * shortest / TIMED


def warn_if_long(model: NeuronModel, scorer: Scorer, prompts: Sequence[Prompt], stacklevel: int = 3) -> None:
    """Say how long the method is going to take if that is long, and what is cheaper."""
    seconds = seconds_needed(model, scorer, prompts)
    if seconds < LONG:
        if seconds:
            LOG.info("%s is going to take about %s", scorer.name, duration(seconds))
        return
    rows = scorer.rows_per_prompt(model)
    warnings.warn(
        f"{scorer.name} is going to take about {duration(seconds)}: {rows:,} rows through the model for each of "
        f"{len(prompts)} prompts. {scorer.cheaper}".strip(),
        LongRunWarning,
        stacklevel=stacklevel,
    )


def duration(seconds: float) -> str:
    """``"14 minutes"``, ``"3.2 hours"``, ``"2.5 days"``."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * size:
            number = seconds / size
            return f"{number:.0f} {name}" if name == "minutes" else f"{number:.1f} {name}"
    return f"{seconds:.0f} seconds"
