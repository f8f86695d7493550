"""What a model says at the answer position, and the objectives that methods explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kn_attrib.errors import MethodError, unknown

Objective = Literal["prob", "logprob", "logit", "logodds"]


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


def answer_of(logits: Tensor, answers: Tensor) -> Answer:
    """What ``logits [row, vocabulary]`` say of the gold tokens ``answers [row]``."""
    logprobs = logits.log_softmax(-1)
    gold = logprobs.gather(1, answers[:, None])
    return Answer(gold[:, 0], (logprobs > gold).sum(-1) + 1, logprobs.argmax(-1))


def _gold(values: Tensor, answers: Tensor) -> Tensor:
    return values.gather(1, answers[:, None])[:, 0]


def _logodds(logits: Tensor, answers: Tensor) -> Tensor:
    return _gold(logits, answers) - logits.scatter(1, answers[:, None], -torch.inf).logsumexp(1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "prob": lambda logits, answers: _gold(logits.softmax(-1), answers),
    "logprob": lambda logits, answers: _gold(logits.log_softmax(-1), answers),
    "logit": _gold,
    "logodds": _logodds,
}


def objective_value(logits: Tensor, answers: Tensor, objective: Objective) -> Tensor:
    """The objective ``F`` of each row.

    ``prob`` is p(answer), ``logprob`` its natural logarithm, ``logit`` the answer's logit, ``logodds`` is
    log p/(1 − p), which stays exact where p is almost 1.

    Parameters
    ----------
    logits : ``[row, vocabulary]``.
    answers : ``[row]``, gold token ids.

    Raises
    ------
    MethodError : unknown objective.
    """
    if objective not in OBJECTIVES:
        raise MethodError(unknown("objective", objective, OBJECTIVES))
    return OBJECTIVES[objective](logits, answers)
