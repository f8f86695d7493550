"""What an intervention does to answers: measured once per (prompt, neurons, factor), however often it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kn_attrib.interventions import ablate_layers, scale_rows
from kn_attrib.model import NeuronModel
from kn_attrib.neurons import NeuronSet
from kn_attrib.prompts import Prompt

INTACT = NeuronSet()


class Outcome(NamedTuple):
    """The model's answer to one prompt: natural log-probability and rank of the gold answer, id of the top token."""

    logprob: float
    rank: int
    top: int


class Job(NamedTuple):
    """One prompt under one intervention: the neurons' activations multiplied by the factor at the answer."""

    prompt: Prompt
    neurons: NeuronSet
    factor: float


@dataclass
class Evaluator:
    """Runs interventions, many different ones in a forward pass, and remembers their outcomes.

    Parameters
    ----------
    model : the model.
    max_rows : most prompts in one forward pass.
    """

    model: NeuronModel
    max_rows: int = 256
    _known: dict[Job, Outcome] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job], progress: Callable[[int], object] | None = None) -> list[Outcome]:
        """Outcomes of the jobs, in order."""
        asked = [_normal(job) for job in jobs]
        new = [job for job in dict.fromkeys(asked) if job not in self._known]
        for factor in sorted({job.factor for job in new}):
            same = [job for job in new if job.factor == factor]
            for indices, batch in self.model.batches([job.prompt for job in same], self.max_rows):
                with scale_rows(self.model, [same[i].neurons for i in indices], factor):
                    answer = self.model.answers(batch)
                found = zip(answer.logprob.tolist(), answer.rank.tolist(), answer.top.tolist(), strict=True)
                self._known.update((same[i], Outcome(*each)) for i, each in zip(indices, found, strict=True))
                if progress is not None:
                    progress(len(indices))
        return [self._known[job] for job in asked]

    def without_ffn(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        """Outcomes with every feed-forward vector zero at the answer position: the ceiling of any neuron claim."""
        outcomes: dict[int, Outcome] = {}
        for indices, batch in self.model.batches(prompts, self.max_rows):
            with ablate_layers(self.model):
                answer = self.model.answers(batch)
            found = zip(answer.logprob.tolist(), answer.rank.tolist(), answer.top.tolist(), strict=True)
            outcomes.update((i, Outcome(*each)) for i, each in zip(indices, found, strict=True))
        return [outcomes[i] for i in range(len(prompts))]


def _normal(job: Job) -> Job:
    """No neurons, or a factor of one, leave the model as it is."""
    return job if len(job.neurons) and job.factor != 1.0 else Job(job.prompt, INTACT, 1.0)


def effect(before: Sequence[Outcome], after: Sequence[Outcome]) -> dict[str, float]:
    """Metrics of one group of prompts.

    - ``p_before``, ``p_after``: mean probability of the answer;
    - ``relative_change``: ``p_after / p_before − 1``, the ratio of means;
    - ``mean_relative_change``: the mean over prompts of ``p_after / p_before − 1``, the mean of ratios;
    - ``delta_logprob``: mean change of the natural log-probability;
    - ``rank_after``: mean rank of the answer;
    - ``flip``: share of prompts whose most likely token changes.
    """
    log_before, log_after = (np.array([o.logprob for o in outcomes]) for outcomes in (before, after))
    p_before, p_after = np.exp(log_before), np.exp(log_after)
    return {
        "p_before": float(p_before.mean()),
        "p_after": float(p_after.mean()),
        "relative_change": float(p_after.mean() / p_before.mean() - 1),
        "mean_relative_change": float(np.mean(np.expm1(log_after - log_before))),
        "delta_logprob": float(np.mean(log_after - log_before)),
        "rank_after": float(np.mean([o.rank for o in after])),
        "flip": float(np.mean([b.top != a.top for b, a in zip(before, after, strict=True)])),
    }
