"""A model's head: the gold token's log-odds, its rank and the most likely word, without logits of all words.

With a vocabulary of 262,144 words a row of logits takes a megabyte, and a softmax in single precision loses digits. So
the vocabulary is swept in tiles: each tile's logits are made, added up, and forgotten. The gradient of the log of a sum
of exponentials is the mean unembedding vector, which the same sweep collects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from kn_attrib.facts.prompts import Kind
from kn_attrib.models.answers import Answer, Gold, answer_of, gold_of
from kn_attrib.models.compute import SetPrecision, full_precision
from kn_attrib.models.passes import answer_only, arguments, at_positions, dummy_inputs, quiet
from kn_attrib.models.torch_defaults import torch_defaults

LARGE = 2**14
"""Words above which the vocabulary is swept; below, logits are small beside everything else."""
TILE_ELEMENTS, SMALLEST_TILE = 2**20, 2**10
"""Logits that a tile makes at a time on a CPU (they stay in its cache), and the fewest words of a tile."""
ON_GPU = 2**5
"""Times as many on a GPU, where a tile is a launch."""
LOGIT_TENSORS = 6
"""Tensors of vocabulary width that a row holds at its peak where logits are made."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
ROUGH_TOLERANCE = 2e-2  # half precision


@dataclass
class Head:
    """The head of one model.

    What methods and interventions ask for is made in two steps: `final`, what the head reads at the answer position
    (or the logits, where the vocabulary is not swept), and `gold` or `answer` of that.

    Parameters
    ----------
    model, kind : the model, which is run on a short text if its vocabulary is large.
    multiply : ``x, W, b -> x Wᵀ + b`` of states and a part of the vocabulary, nothing of it recorded.

    Attributes
    ----------
    is_plain : the model's logits are exactly what a plain linear of a large vocabulary makes of what it reads. Soft
        caps, scales and heads of other kinds are left to the model's own forward.
    """

    model: PreTrainedModel
    kind: Kind
    multiply: Callable[[Tensor, Tensor, Tensor | None], Tensor] = nn.functional.linear
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        # At once: later, hooks may be at work that count on other passes.
        self.is_plain = self._makes_logits_alone()

    @property
    def module(self) -> Any:
        """The linear that makes logits."""
        return self.model.get_output_embeddings()

    def _makes_logits_alone(self) -> bool:
        head = self.module
        if type(head) is not nn.Linear or head.out_features < LARGE or type(head.weight) is not nn.Parameter:
            return False
        read: list[Tensor] = []
        handle = head.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
        try:
            with quiet(self.model), torch.no_grad():
                logits = self.model(**arguments(self.kind, dummy_inputs(self.model, self.kind))).logits
                if len(read) != 1 or read[0].ndim != 3 or read[0].shape[:2] != logits.shape[:2]:
                    return False
                made = nn.functional.linear(read[0], head.weight, head.bias)
        finally:
            handle.remove()
        error = (made.float() - logits.float()).norm() / logits.float().norm()
        return bool(error <= TOLERANCE.get(made.dtype, ROUGH_TOLERANCE))

    @property
    def is_swept(self) -> bool:
        """Whether logits need not be made: the head is plain and nobody listens to what it gives."""
        module = self.module
        return self.is_plain and all(isinstance(hook, SetPrecision) for hook in module._forward_hooks.values())

    def final(self, run: Callable[[], Any], positions: Tensor | None, n_tokens: int) -> Tensor:
        """What a pass leaves for `gold` and `answer`.

        Parameters
        ----------
        run : runs the model and returns its output.
        positions : ``[row]``, answer positions; all tokens if not given.
        n_tokens : of each row.

        Returns
        -------
        ``[row, hidden]``, or ``[row, vocabulary]`` in at least single precision (without positions ``[row, token, …]``)
        """
        if self.is_swept:
            with self._captured() as read:
                run()
            (states,) = read
            return states if positions is None else at_positions(states, positions)
        if positions is None:
            return at_least_float32(run().logits)
        with answer_only(self.model, positions, n_tokens):
            return at_least_float32(at_positions(run().logits, positions))

    def gold(self, final: Tensor, answers: Tensor) -> Gold:
        """The gold tokens' logits and log-odds; ``final`` can be differentiated, once.

        Parameters
        ----------
        final : ``[row, …]``, from `final`.
        answers : ``[row]``, gold token ids.
        """
        if self._is_logits(final):
            return gold_of(final, answers)
        logit, logodds = _GoldOfStates.apply(final, self, answers)  # type: ignore[no-untyped-call]
        return Gold(logit, logodds)

    def answer(self, final: Tensor, answers: Tensor) -> Answer:
        """The gold tokens' log-probabilities and ranks, and the most likely tokens; not differentiable."""
        if self._is_logits(final):
            return answer_of(final, answers)
        with torch.no_grad():
            swept = self._sweep(final, answers, gradient=False, ranks=True)
            return Answer(swept.gold.logprob, swept.rank, swept.top)

    def logits(self, final: Tensor) -> Tensor:
        """Logits of all words, ``[row, vocabulary]``: for a few rows, where words are to be named; not differentiable.

        Parameters
        ----------
        final : ``[row, …]``, from `final`.
        """
        if self._is_logits(final):
            return final
        module = self.module
        bias = None if module.bias is None else module.bias.detach()
        with torch_defaults(gradients=False), torch.no_grad(), full_precision():
            return at_least_float32(self.multiply(final, module.weight.detach(), bias))

    def mean_logit(self, final: Tensor) -> Tensor:
        """Mean logit of the vocabulary, ``[row]``; differentiable."""
        if self._is_logits(final):
            return final.mean(-1)
        weight, bias = self.module.weight.detach(), self.module.bias
        mean: Tensor = final @ weight.mean(0)
        return mean if bias is None else mean + bias.detach().mean()

    def row_bytes(self, dtype: torch.dtype) -> int:
        """Bytes that the head takes for each row."""
        single = max(4, dtype.itemsize)
        if self.is_swept:
            return 8 * int(self.module.in_features) * single
        return LOGIT_TENSORS * int(self.model.config.get_text_config().vocab_size) * single

    def _is_logits(self, final: Tensor) -> bool:
        return not self.is_plain or final.shape[-1] == self.module.out_features

    @contextmanager
    def _captured(self) -> Iterator[list[Tensor]]:
        """While active the head keeps what it is given, and makes no logits of it."""
        read: list[Tensor] = []
        own = vars(self.module)
        before = own.get("forward")

        def keep(states: Tensor) -> Tensor:
            read.append(states)
            return states[..., :1]

        own["forward"] = keep
        try:
            yield read
        finally:
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before

    def _sweep(self, states: Tensor, answers: Tensor, gradient: bool, ranks: bool = False) -> Swept:
        module = self.module
        weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
        found = Swept.begin(states, weight, bias, answers, gradient)
        elements = TILE_ELEMENTS * (ON_GPU if states.is_cuda else 1)
        # A power of two: libraries of products are chosen by shapes, and few shapes are soon decided.
        size = max(SMALLEST_TILE, 2 ** int(math.log2(max(1, elements // max(1, len(states))))))
        # A caller's autocast must not reach these products, nor a precision that was asked for the model's own.
        with torch_defaults(gradients=False), full_precision():
            for start in range(0, len(weight), size):
                tile = weight[start : start + size]
                own_bias = None if bias is None else bias[start : start + size]
                logits = at_least_float32(self.multiply(states, tile, own_bias))
                found.add(logits, tile, start, answers, ranks)
        return found


@dataclass
class Swept:
    """What has been seen of the vocabulary so far.

    Attributes
    ----------
    logit : of the gold tokens.
    peak, total : ``[row]``: largest logit of the other words, and their ``Σ exp(z − peak)``.
    mean : ``[row, hidden]``, ``Σ exp(z − peak) W`` of the other words; empty if no gradient is asked for.
    rank : ``[row]``, one more than the number of words above the gold one.
    word : ``[row]``, the most likely of the other words.
    gold_ids : ``[row]``.
    """

    logit: Tensor
    peak: Tensor
    total: Tensor
    mean: Tensor
    rank: Tensor
    word: Tensor
    gold_ids: Tensor

    @classmethod
    def begin(cls, states: Tensor, weight: Tensor, bias: Tensor | None, answers: Tensor, gradient: bool) -> Swept:
        """Nothing seen yet but the gold tokens; ``gradient`` asks for the mean unembedding vector too."""
        rows = at_least_float32(states)
        logit = (rows * weight[answers].to(rows)).sum(-1)
        if bias is not None:
            logit = logit + bias[answers].to(rows)
        return cls(
            logit=logit,
            peak=torch.full_like(logit, -torch.inf),
            # In double precision: a sum of hundreds of thousands of terms loses digits in single.
            total=torch.zeros_like(logit, dtype=torch.float64),
            mean=torch.zeros_like(rows) if gradient else rows.new_empty(0),
            rank=torch.ones_like(answers),
            word=torch.zeros_like(answers),
            gold_ids=answers,
        )

    def add(self, logits: Tensor, tile: Tensor, start: int, answers: Tensor, ranks: bool) -> None:
        """Take in the words from ``start`` on: their ``logits [row, word]`` and unembedding ``tile [word, hidden]``."""
        own = answers - start
        inside = ((own >= 0) & (own < logits.shape[1])).nonzero()[:, 0]
        logits[inside, own[inside]] = -torch.inf
        highest, word = logits.max(1)
        if ranks:
            self.rank += (logits > self.logit[:, None]).sum(-1)
            self.word = torch.where(highest > self.peak, word + start, self.word)
        peak = torch.maximum(self.peak, highest)
        fading = (self.peak - peak).exp()
        terms = logits.sub_(peak[:, None]).exp_()
        self.total = self.total * fading + terms.sum(1)
        if len(self.mean):
            self.mean = self.mean * fading[:, None] + at_least_float32(terms.to(tile.dtype) @ tile)
        self.peak = peak

    @property
    def gold(self) -> Gold:
        """The gold tokens among all words seen."""
        rest = self.peak.double() + self.total.log()
        return Gold(self.logit, (self.logit.double() - rest).to(self.logit))

    @property
    def top(self) -> Tensor:
        """The most likely of all words seen, the gold ones included: ``[row]``."""
        return torch.where(self.peak > self.logit, self.word, self.gold_ids)


class _GoldOfStates(torch.autograd.Function):
    """Logit and log-odds of the gold tokens from what the head reads; the gradient's mean comes from the same sweep."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Head, answers: Tensor) -> tuple[Tensor, Tensor]:
        swept = head._sweep(states, answers, gradient=ctx.needs_input_grad[0])
        if ctx.needs_input_grad[0]:
            own = at_least_float32(head.module.weight.detach()[answers])
            ctx.save_for_backward(own, swept.mean / swept.total[:, None].to(own))
            ctx.dtype = states.dtype
        gold = swept.gold
        return gold.logit, gold.logodds

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        own, mean = ctx.saved_tensors
        of_logit, of_odds = outer
        slope = (of_logit + of_odds)[:, None] * own - of_odds[:, None] * mean
        return slope.to(ctx.dtype), None, None


def at_least_float32(values: Tensor) -> Tensor:
    """Values in at least single precision."""
    return values if values.dtype == torch.float64 else values.float()
