"""Refinement: from scores per prompt to the neurons of a fact, one procedure for all methods."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kn_attrib.errors import ConfigError, NeuronError, check_kinds, unknown
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.neuron_scores import NeuronScores

ADAPTIVE_STEP = 0.05
ADAPTIVE_PASSES = 6
ADAPTIVE_RANGE = (2.0, 5.0)
GENERAL = 0.1
"""Share of the facts of other relations that may have a neuron too before it counts as general machinery."""


@dataclass(frozen=True)
class Refinement:
    """How scores become neurons.

    A neuron *passes* in a prompt if its score is at least ``threshold`` times the prompt's highest score over all
    layers, and is *kept* if it passes in at least ``share`` of the fact's prompts and in at least ``min_prompts``.

    Parameters
    ----------
    threshold : fraction of the maximum.
    share : fraction of the prompts.
    strict : "more than" instead of "at least", for both.
    min_prompts : least number of prompts (never more than the fact has).
    adaptive : move ``share`` by 0.05 per relation, at most six passes, until the mean number of neurons per fact
        is between 2 and 5.
    percentile : if given, a neuron passes if its score is above this percentile (0-100) of the prompt's scores; in the
        place of a threshold.
    k : if given, simply the ``k`` neurons with the highest mean score; in the place of everything above.

    Raises
    ------
    ConfigError : a number is out of range, or two that exclude one another are given.

    Reference
    ---------
    Dai et al. 2022, *Knowledge Neurons in Pretrained Transformers* (preset ``dai2022``); EleutherAI's
    knowledge-neurons 0.0.2 (preset ``eleuther``).
    """

    threshold: float = 0.2
    share: float = 0.7
    strict: bool = False
    min_prompts: int = 1
    adaptive: bool = False
    percentile: float | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        check_kinds(self, "refinement")
        for name, low, high in (("threshold", 0, 1), ("share", 0, 1), ("percentile", 0, 100)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"refinement {name} is {value}; expected a number from {low} to {high}.")
        for name in ("min_prompts", "k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"refinement {name} is {value}; expected at least 1.")
        replaced = {"k": tuple(_DEFAULTS)} if self.k is not None else {"percentile": ("threshold",)}
        for name, others in replaced.items():
            unused = [other for other in others if getattr(self, other) != _DEFAULTS[other]]
            if getattr(self, name) is not None and unused:
                raise ConfigError(
                    f"refinement {name} stands in the place of {unused[0]}, which is {getattr(self, unused[0])}; "
                    "give one of them."
                )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Refinement:
        """Published settings by name, with changes; a percentile takes the place of the preset's threshold.

        Raises
        ------
        ConfigError : no such preset or setting, or changes that exclude one another or the preset (``k``).
        """
        if name not in PRESETS:
            raise ConfigError(unknown("refinement preset", name, PRESETS))
        for change in changes:
            if change not in (*_DEFAULTS, "k"):
                raise ConfigError(unknown("setting of a refinement", change, (*_DEFAULTS, "k")))
        _check_bar(changes)
        if changes.get("percentile") is not None:
            changes = {"threshold": _DEFAULTS["threshold"], **changes}
        return replace(PRESETS[name], **changes)

    def shares(self, values: Tensor) -> Tensor:
        """Fraction of prompts in which each neuron passes: ``[prompt, layer, neuron]`` -> ``[layer, neuron]``."""
        flat = values.flatten(1)
        if self.percentile is not None:
            # Row by row: torch.quantile refuses more than 2²⁴ numbers at once, fewer than a large model's scores.
            bar = torch.stack([torch.quantile(row.double(), self.percentile / 100) for row in flat]).to(flat)
            passes = flat > bar[:, None]
        else:
            bar = self.threshold * flat.amax(1)
            passes = flat > bar[:, None] if self.strict else flat >= bar[:, None]
        # Where the highest score is not positive nothing is responsible, and a fraction of it is no bar.
        passes &= flat.amax(1, keepdim=True) > 0
        return passes.float().mean(0).reshape(values.shape[1:])

    def keep(self, shares: Tensor, n_prompts: int) -> NeuronSet:
        """Neurons whose share of prompts is large enough."""
        # Counted in whole prompts: 0.7 * 10 must be 7, whatever its floating-point product says.
        needed = self.share * n_prompts
        least = math.floor(needed + 1e-9) + 1 if self.strict else math.ceil(needed - 1e-9)
        least = max(least, min(self.min_prompts, n_prompts), 1)
        counts = (shares * n_prompts).round()
        return NeuronSet(Neuron(*pair) for pair in (counts >= least).nonzero().tolist())


_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(Refinement) if each.name != "k"}


def _check_bar(given: Mapping[str, Any]) -> None:
    """Raise where a threshold is given beside what stands in its place, be it the default one."""
    if given.get("percentile") is not None and given.get("threshold") is not None:
        raise ConfigError(
            f"refinement percentile stands in the place of threshold, which is {given['threshold']}; give one of them."
        )


PRESETS = {
    "dai2022": Refinement(threshold=0.2, share=0.7, min_prompts=3, adaptive=True),
    "eleuther": Refinement(threshold=0.3, share=0.5, strict=True),
}


def refine(
    scores: NeuronScores,
    threshold: float | None = None,
    share: float | None = None,
    preset: str | None = None,
    *,
    strict: bool | None = None,
    min_prompts: int | None = None,
    adaptive: bool | None = None,
    percentile: float | None = None,
    k: int | None = None,
    negatives: NeuronScores | None = None,
) -> NeuronSet:
    """The neurons of one fact.

    Parameters
    ----------
    scores : scores of one fact's prompts.
    threshold, share, strict, min_prompts, adaptive, percentile, k : see `Refinement`; what is not given is the
        preset's, or that class's default.
    preset : ``"dai2022"`` or ``"eleuther"``.
    negatives : scores of prompts that express *other* facts in the same templates; the neurons that the same
        refinement selects there are removed.

    Raises
    ------
    ConfigError : a setting is out of range, the preset is unknown, or two settings exclude one another.
    NeuronError : the scores are of several facts (use `refine_all`), or are none.
    """
    if not isinstance(scores, NeuronScores):
        raise NeuronError(f"scores are {type(scores).__name__}; expected NeuronScores, as score returns them.")
    if len(scores.fact_ids) != 1:
        raise NeuronError(f"scores are of {len(scores.fact_ids)} facts; expected one. Use refine_all for several.")
    asked = {
        "threshold": threshold, "share": share, "strict": strict, "min_prompts": min_prompts, "adaptive": adaptive,
        "percentile": percentile, "k": k,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if k is not None and len(given) + (preset is not None) > 1:
        others = [*(name for name in given if name != "k"), *([] if preset is None else ["preset"])]
        raise ConfigError(f"refinement k stands in the place of {others[0]}; give one of them.")
    _check_bar(given)
    settings = Refinement(**given) if preset is None else Refinement.preset(preset, **given)
    found = refine_all(scores, settings)[scores.fact_ids[0]]
    if negatives is None:
        return found
    unwanted = refine_all(negatives, replace(settings, adaptive=False))
    return NeuronSet(n for n in found if not any(n in other for other in unwanted.values()))


def refine_all(scores: NeuronScores, settings: Refinement) -> dict[str, NeuronSet]:
    """The neurons of every scored fact: fact id -> neurons; adaptive settings adapt per relation."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, fact in enumerate(scores.facts):
        rows[fact].append(row)
    if settings.k is not None:
        return {fact: scores[rows[fact]].top_k(settings.k) for fact in rows}
    relation_of = dict(zip(scores.facts, scores.relations, strict=True))
    sets: dict[str, NeuronSet] = {}
    for relation in dict.fromkeys(scores.relations):
        own = {fact: each for fact, each in rows.items() if relation_of[fact] == relation}
        shares = {fact: (settings.shares(scores.values[each]), len(each)) for fact, each in own.items()}
        found = _adapt(shares, settings) if settings.adaptive else _keep_all(shares, settings)
        sets.update(found)
    return {fact: sets[fact] for fact in rows}


def specific_sets(
    sets: Mapping[str, NeuronSet], relations: Mapping[str, str], general: float = GENERAL
) -> dict[str, NeuronSet]:
    """Every fact's neurons without those that many facts of other relations have as well: fact id -> neurons.

    Parameters
    ----------
    sets : neurons of facts, as of `refine_all`; of one method, of two relations at least.
    relations : each fact's relation.
    general : a neuron is removed from a fact if more than this share of the facts of other relations have it.

    Raises
    ------
    ConfigError : the share is out of range, or all facts are of one relation.
    """
    if not 0 <= general <= 1:
        raise ConfigError(f"general is {general}; expected a share from 0 to 1.")
    sizes = Counter(relations[fact] for fact in sets)
    if len(sizes) < 2:
        raise ConfigError("all facts are of one relation; what is specific shows beside facts of others.")
    everywhere = Counter(neuron for neurons in sets.values() for neuron in neurons)
    inside = {
        relation: Counter(n for fact, neurons in sets.items() if relations[fact] == relation for n in neurons)
        for relation in sizes
    }

    def elsewhere(neuron: Neuron, relation: str) -> float:
        return (everywhere[neuron] - inside[relation][neuron]) / (len(sets) - sizes[relation])

    return {
        fact: NeuronSet(n for n in neurons if elsewhere(n, relations[fact]) <= general)
        for fact, neurons in sets.items()
    }


def _keep_all(shares: dict[str, tuple[Tensor, int]], settings: Refinement) -> dict[str, NeuronSet]:
    return {fact: settings.keep(share, n) for fact, (share, n) in shares.items()}


def _adapt(shares: dict[str, tuple[Tensor, int]], settings: Refinement) -> dict[str, NeuronSet]:
    """Loosen or tighten the share until the relation's facts have 2 to 5 neurons on average."""
    low, high = ADAPTIVE_RANGE
    sets = _keep_all(shares, settings)
    for _ in range(ADAPTIVE_PASSES):
        mean = sum(map(len, sets.values())) / len(sets)
        if low <= mean <= high:
            break
        step = ADAPTIVE_STEP if mean > high else -ADAPTIVE_STEP
        settings = replace(settings, share=min(1.0, max(0.0, settings.share + step)))
        sets = _keep_all(shares, settings)
    return sets
