"""Do neurons write what follows the contexts that activate them? By layer, against shuffled values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from kn_attrib.evaluation.reading.top_activations import NONE
from kn_attrib.evaluation.reading.values import ValueReader
from kn_attrib.randomness import numpy_generator

NEAR = 10
"""Ranks up to which a word is among a value vector's words."""
MEASURES = {"agreement": 1, f"among_{NEAR}": NEAR}
"""Measure -> the worst rank of the next word that counts."""
GROUPS = 6
"""Most groups of layers in a short table."""
CALIBRATION = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Bounds of the probability of a value's most likely word, between which agreement is taken."""


def layer_words(
    reader: ValueReader, layer: int, signs: Tensor, following: Tensor, k: int, seed: int
) -> dict[str, Tensor]:
    """What all neurons of a layer write, and the rank of the word that follows each one's first context.

    Parameters
    ----------
    signs : ``[neuron]``, of the activation there.
    following : ``[neuron]``, that word's id; negative where there is none.
    k : words kept of each neuron.
    seed : of the shuffling: each neuron with such a word is given the one of another, of the same layer.

    Returns
    -------
    ``ids, logits, probabilities [neuron, k]``; ``rank, shuffled_rank [neuron]``, 0 where there is no word.
    """
    device = reader.model.device
    has_word = (following >= 0).nonzero()[:, 0]
    order = numpy_generator(seed, "shuffled values", layer).permutation(len(has_word))
    other = torch.full_like(following, NONE)
    other[has_word] = following[has_word[torch.from_numpy(order)]]
    states = reader.states(layer, torch.arange(len(signs), device=device), signs.to(device))
    found = reader.words(states, k, torch.stack([following, other], dim=1).to(device))
    rank, shuffled = found.ranks.cpu().unbind(1)
    return {
        "ids": found.ids.cpu(),
        "logits": found.logits.cpu(),
        "probabilities": found.probabilities.cpu(),
        "rank": rank,
        "shuffled_rank": shuffled,
    }


def agreement_by_layer(layers: Sequence[dict[str, Tensor]]) -> pd.DataFrame:
    """Share of a layer's neurons whose value's words hold what follows their first context.

    ``agreement = Σ_i [argmax(v_i) = next word of i's first context] / n`` over the neurons that have one (Geva et al.
    2021, section 4); ``among_10`` asks for the ten most likely words. Intervals are Wilson's, for neurons as if they
    were independent of one another, which neurons of a layer are not quite.

    Returns
    -------
    ``layer, measure, values`` (``"own"`` or ``"shuffled"``), ``share, low, high, n``.
    """
    rows = [
        {"layer": layer, "measure": measure, "values": name, **_share(ranks[ranks > 0] <= worst)}
        for layer, found in enumerate(layers)
        for name, ranks in (("own", found["rank"]), ("shuffled", found["shuffled_rank"]))
        for measure, worst in MEASURES.items()
    ]
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def agreement_of_groups(found: pd.DataFrame, most: int = GROUPS) -> pd.DataFrame:
    """Agreement of at most so many groups of neighbouring layers, and of all layers together.

    The neurons of a group are counted together: ``Σ_l n_l · share_l / Σ_l n_l``.

    Parameters
    ----------
    found : of `agreement_by_layer`.
    most : groups; all are of as many layers, but for the last one.

    Returns
    -------
    ``layers`` (such as ``"0–4"``, in the end ``"all"``), ``measure, values, share, low, high, n``.
    """
    last = int(found.layer.max())
    size = math.ceil((last + 1) / most)
    groups = {_span(first, min(first + size - 1, last)): (first, first + size) for first in range(0, last + 1, size)}
    rows = []
    for name, (first, end) in {**groups, "all": (0, last + 1)}.items():
        inside = found[(found.layer >= first) & (found.layer < end)]
        for (measure, values), part in inside.groupby(["measure", "values"], sort=False):
            count = int((part["share"].fillna(0) * part.n).round().sum())
            rows.append({"layers": name, "measure": measure, "values": values, **_of(count, int(part.n.sum()))})
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"


def calibration(layers: Sequence[dict[str, Tensor]]) -> pd.DataFrame:
    """Agreement of neurons by the probability of their value's most likely word, over all layers.

    Returns
    -------
    ``above, up_to`` (bounds of that probability), ``probability`` (its mean), ``share, low, high, n``.
    """
    ranks = torch.cat([found["rank"] for found in layers])
    tops = torch.cat([found["probabilities"][:, 0] for found in layers]).double()
    rows = []
    for above, up_to in pairwise(CALIBRATION):
        inside = (tops > above) & (tops <= up_to) & (ranks > 0)
        mean = float(tops[inside].mean()) if inside.any() else np.nan
        rows.append({"above": above, "up_to": up_to, "probability": mean, **_share(ranks[inside] == 1)})
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def _share(right: Tensor) -> dict[str, float]:
    return _of(int(right.sum()), len(right))


def _of(count: int, n: int) -> dict[str, float]:
    if not n:
        return {"share": np.nan, "low": np.nan, "high": np.nan, "n": 0}
    interval = stats.binomtest(count, n).proportion_ci(method="wilson")
    return {"share": count / n, "low": float(interval.low), "high": float(interval.high), "n": n}
