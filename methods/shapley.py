"""Shapley values of removal: a neuron's mean effect over the orders in which neurons can be removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.silent_sets import slopes_of_sets, values_of_sets
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import torch_generator
from kn_attrib.scoring.contrast_pool import Pool
from kn_attrib.scoring.registry import register
from kn_attrib.scoring.scorer import FactScorer

BLOCK = 8
"""Steps of an order that are evaluated together; whether it is cut short is asked between blocks."""
LEAST_ORDERS = 4
"""Orders drawn before a variance is believed."""


@register("shapley")
@dataclass(frozen=True)
class Shapley(FactScorer):
    """Monte-Carlo Shapley value of removing a neuron, among the candidates that a gradient names.

    ``score_i = E over random orders of v(before i) − v(before i and i)``, ``v(S)`` the mean over the fact's texts of
    p(answer) with ``S`` silent; the scores of the candidates add up to ``v(nothing) − v(all candidates)``. Shares the
    credit of neurons that stand in for one another, which single ablation denies them. An order is cut short once the
    answer is as low as with all candidates removed (truncation), and a fact gets no more orders once each score is
    known to ``precision`` (empirical Bernstein bound, which asks for hundreds of orders: with few it seldom stops).
    Neurons that are no candidates score 0. Cost: up to
    ``orders · candidates`` forwards per prompt.

    Parameters
    ----------
    candidates : neurons with the largest ``|a_i · ∂p/∂a_i|`` on average, among which credit is shared.
    orders : most orders of a fact.
    truncation : an order ends when the rest could change p(answer) by less than this share of it; 0 never cuts.
    precision : half width of the scores' 95 % bounds at which a fact is done; 0 always takes all orders.
    seed : of the orders.

    Raises
    ------
    MethodError : a number is out of range.

    Reference
    ---------
    Ghorbani & Zou 2020, arXiv 2002.09815; Maurer & Pontil 2009 for the bound.
    """

    candidates: int = 16
    orders: int = 10
    truncation: float = 0.01
    precision: float = 0.05
    seed: int = 0
    reference: ClassVar[str] = "Ghorbani & Zou 2020, arXiv 2002.09815"

    def __post_init__(self) -> None:
        for name, least in (("candidates", 1), ("orders", 1), ("truncation", 0), ("precision", 0)):
            if getattr(self, name) < least:
                raise MethodError(f"shapley: {name} is {getattr(self, name)}; expected at least {least}.")

    def score_facts(self, model: NeuronModel, pool: Pool) -> dict[str, Tensor]:
        queries = [[pool.prompts[i] for i in pool.of(fact)] for fact in pool.facts]
        slopes = slopes_of_sets(model, queries, [NeuronSet()] * len(queries))
        games = [self._game(fact.id, place, slopes[place]) for place, fact in enumerate(pool.facts)]
        ends = [(game.place, NeuronSet(players)) for game in games for players in ((), game.players)]
        values = values_of_sets(model, queries, ends).view(-1, 2).tolist()
        for game, (full, empty) in zip(games, values, strict=True):
            game.full, game.empty = full, empty
        for _ in range(self.orders):
            active = [game for game in games if not self._is_done(game)]
            if not active:
                break
            self._play(model, queries, active)
        return {fact.id: game.scores(slopes[0]) for fact, game in zip(pool.facts, games, strict=True)}

    def _game(self, fact: str, place: int, slope: Tensor) -> Game:
        best = slope.abs().flatten().topk(min(self.candidates, slope.numel())).indices.tolist()
        players = tuple(Neuron(*divmod(index, slope.shape[1])) for index in best)
        return Game(place, players, torch_generator(self.seed, fact))

    def _play(self, model: NeuronModel, queries: Sequence[Sequence[Prompt]], games: list[Game]) -> None:
        """One order of each game, all games in step."""
        orders = [torch.randperm(len(game.players), generator=game.generator).tolist() for game in games]
        before = [game.full for game in games]
        gains = [[0.0] * len(game.players) for game in games]
        for start in range(0, max(len(order) for order in orders), BLOCK):
            jobs: list[tuple[int, int]] = []
            sets: list[tuple[int, NeuronSet]] = []
            for i, game in enumerate(games):
                goes_on = abs(before[i] - game.empty) >= self.truncation * game.full
                if not goes_on:
                    continue
                for step in range(start, min(start + BLOCK, len(orders[i]))):
                    jobs.append((i, step))
                    sets.append((game.place, NeuronSet(game.players[player] for player in orders[i][: step + 1])))
            for (i, step), value in zip(jobs, values_of_sets(model, queries, sets).tolist(), strict=True):
                gains[i][orders[i][step]] = before[i] - value
                before[i] = value
        for game, gain in zip(games, gains, strict=True):
            game.gains.append(gain)

    def _is_done(self, game: Game) -> bool:
        """Every score is known to the precision with 95 % (empirical Bernstein bound; gains lie within ±p(answer))."""
        n = len(game.gains)
        if self.precision == 0 or n < LEAST_ORDERS:
            return False
        variance = float(torch.tensor(game.gains, dtype=torch.float64).var(dim=0).max())
        log = math.log(2 / 0.05)
        half_width = math.sqrt(2 * variance * log / n) + 7 * 2 * game.full * log / (3 * (n - 1))
        return half_width <= self.precision


@dataclass
class Game:
    """Removal of a fact's candidates, order by order."""

    place: int
    players: tuple[Neuron, ...]
    generator: torch.Generator
    full: float = 0.0
    empty: float = 0.0
    gains: list[list[float]] = field(default_factory=list)

    def scores(self, like: Tensor) -> Tensor:
        """Mean gains as ``[layer, neuron]``."""
        scores = torch.zeros_like(like)
        means = torch.tensor(self.gains, dtype=torch.float64).mean(0)
        for neuron, value in zip(self.players, means.tolist(), strict=True):
            scores[neuron.layer, neuron.index] = value
        return scores
