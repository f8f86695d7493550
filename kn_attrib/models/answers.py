"""What a model says of the gold token at the answer position, and the objectives that methods explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown

Objective = Literal["prob", "logprob", "logit", "logodds"]


@dataclass(frozen=True)
class Gold:
    """What all objectives are made of, one entry per row; both can be differentiated.

    ``log p/(1 − p)`` keeps the digits that a probability loses where it is almost 0 or almost 1, so everything else is
    made from it.

    Attributes
    ----------
    logit : ``z_y``, the gold token's logit.
    logodds : ``z_y − log Σ_{j≠y} exp z_j``.
    """

    logit: Tensor
    logodds: Tensor

    @property
    def logprob(self) -> Tensor:
        """Natural log of the gold token's probability."""
        return torch.nn.functional.logsigmoid(self.logodds)


@dataclass(frozen=True)
class Answer:
    """What the model says at the answer position, one entry per query.

    Attributes
    ----------
    logprob : natural log of the gold answer's probability.
    rank : 1 when the gold answer is the most likely token.
    top : id of the most likely token.
    """

    logprob: Tensor
    rank: Tensor
    top: Tensor


def gold_of(logits: Tensor, answers: Tensor) -> Gold:
    """The gold tokens ``answers [row]`` in ``logits [row, vocabulary]``."""
    gold = logits.gather(1, answers[:, None])[:, 0]
    return Gold(gold, gold - logits.scatter(1, answers[:, None], -torch.inf).logsumexp(1))


def answer_of(logits: Tensor, answers: Tensor) -> Answer:
    """What ``logits [row, vocabulary]`` say of the gold tokens ``answers [row]``."""
    gold = gold_of(logits, answers)
    return Answer(gold.logprob, (logits > gold.logit[:, None]).sum(-1) + 1, logits.argmax(-1))


OBJECTIVES: dict[str, Callable[[Gold], Tensor]] = {
    "prob": lambda gold: gold.logodds.sigmoid(),
    "logprob": lambda gold: gold.logprob,
    "logit": lambda gold: gold.logit,
    "logodds": lambda gold: gold.logodds,
}


def objective_of(gold: Gold, objective: Objective) -> Tensor:
    """The objective ``F`` of each row.

    ``prob`` is p(answer), ``logprob`` its natural logarithm, ``logit`` the answer's logit, ``logodds`` is
    log p/(1 − p), which stays exact where p is almost 1.

    Raises
    ------
    MethodError : unknown objective.
    """
    if objective not in OBJECTIVES:
        raise MethodError(unknown("objective", objective, OBJECTIVES))
    return OBJECTIVES[objective](gold)


def objective_value(logits: Tensor, answers: Tensor, objective: Objective) -> Tensor:
    """`objective_of` the gold tokens ``answers [row]`` in ``logits [row, vocabulary]``."""
    return objective_of(gold_of(logits, answers), objective)
