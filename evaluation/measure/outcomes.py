"""What an intervention does to answers: measured once per (prompt, neurons, factor), however often it is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kn_attrib.facts.prompts import Prompt, Text
from kn_attrib.forward.batching import batches_of
from kn_attrib.interventions.activations import Positions, ablate_layers
from kn_attrib.interventions.many_rows import answers_of_rows
from kn_attrib.models.answers import Answer
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import NeuronSet

INTACT = NeuronSet()
QUERIES_AT_ONCE = 256
"""Distinct queries of which the fast path keeps a clean pass at a time."""
Single = tuple[float, int, int]
"""Log-probability and rank of one gold token, and the top token."""


class Outcome(NamedTuple):
    """The model's answer to one prompt: natural log-probability and rank of the gold answer, id of the top token.

    Answers of several tokens: the sum of their log-probabilities (or its mean), the worst rank, and all top tokens.
    """

    logprob: float
    rank: int
    top: int | tuple[int, ...]


class Job(NamedTuple):
    """One prompt under one intervention: ``factor · a + shift`` for the neurons, at the answer or at all tokens."""

    text: Text
    neurons: NeuronSet
    factor: float
    shift: tuple[float, ...] = ()
    everywhere: bool = False


@dataclass
class Evaluator:
    """Runs interventions, many different ones in a forward pass, and remembers their outcomes.

    Parameters
    ----------
    model : the model.
    max_rows : most queries in one forward pass.
    normalised : log-probabilities of answers are means over their tokens, not sums.
    """

    model: NeuronModel
    max_rows: int = 256
    normalised: bool = False
    _known: dict[Job, Outcome] = field(default_factory=dict, init=False)

    def run(self, jobs: Sequence[Job], progress: Callable[[int], object] | None = None) -> list[Outcome]:
        """Outcomes of the jobs, in order."""
        asked = [_normal(job) for job in jobs]
        new = [job for job in dict.fromkeys(asked) if job not in self._known]
        for everywhere in (False, True):
            some = [job for job in new if job.everywhere == everywhere]
            if some:
                self._known.update(zip(some, self._scaled(some, progress, everywhere), strict=True))
        return [self._known[job] for job in asked]

    def without_ffn(self, texts: Sequence[Text], layers: Sequence[int] | None = None) -> list[Outcome]:
        """Outcomes with every feed-forward vector (of some layers) zero at the answer position.

        Of all layers: the ceiling of any neuron claim.
        """
        queries = [query for text in texts for query in text.queries]
        found: list[Single] = [(0.0, 0, 0)] * len(queries)
        for indices, batch in self.model.batches(queries, self.max_rows):
            with ablate_layers(self.model, layers):
                answer = self.model.answers(batch)
            for index, single in zip(indices, _singles(answer), strict=True):
                found[index] = single
        return self.joined(texts, found)

    def _scaled(self, jobs: Sequence[Job], progress: Callable[[int], object] | None, everywhere: bool) -> list[Outcome]:
        """Outcomes of jobs: each distinct query is in a batch once, whatever is done to it."""
        wanted = [(query, job) for job in jobs for query in job.text.queries]
        queries = list(dict.fromkeys(query for query, _ in wanted))
        rows: dict[Prompt, list[int]] = defaultdict(list)
        for row, (query, _) in enumerate(wanted):
            rows[query].append(row)
        positions: Positions = "all" if everywhere else "answer"
        found: list[Single] = [(0.0, 0, 0)] * len(wanted)
        at_once = min(QUERIES_AT_ONCE, self.max_rows)
        for indices, batch in batches_of(self.model, queries, at_once, any_length=not everywhere):
            own = [row for index in indices for row in rows[queries[index]]]
            prompts = [prompt for prompt, index in enumerate(indices) for _ in rows[queries[index]]]
            changes = [wanted[row][1] for row in own]
            parts = answers_of_rows(
                self.model,
                batch,
                [job.neurons for job in changes],
                prompts,
                [job.factor for job in changes],
                self.max_rows,
                [job.shift for job in changes],
                positions,
            )
            for some, answers in parts:
                for i, single in zip(some, _singles(answers), strict=True):
                    found[own[i]] = single
                if progress is not None:
                    progress(len(some))
        return self.joined([job.text for job in jobs], found)

    def joined(self, texts: Sequence[Text], singles: Sequence[Single]) -> list[Outcome]:
        """Outcomes of texts from those of their queries, one after the other."""
        each = iter(singles)
        return [self._outcome([next(each) for _ in text.queries]) for text in texts]

    def _outcome(self, tokens: Sequence[Single]) -> Outcome:
        logprobs, ranks, tops = zip(*tokens, strict=True)
        logprob = sum(logprobs)
        if self.normalised:
            logprob /= len(tokens)
        return Outcome(logprob, max(ranks), tops[0] if len(tops) == 1 else tops)


def _singles(answer: Answer) -> list[Single]:
    return list(zip(answer.logprob.tolist(), answer.rank.tolist(), answer.top.tolist(), strict=True))


def _normal(job: Job) -> Job:
    """No neurons, or a factor of one, leave the model as it is."""
    changes = job.factor != 1.0 or job.shift
    return job if len(job.neurons) and changes else Job(job.text, INTACT, 1.0)
