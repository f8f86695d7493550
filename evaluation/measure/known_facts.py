"""Which facts can be judged: known, unambiguous, with prompts on both sides; all others are named with the reason."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from kn_attrib.errors import ConfigError, FactError
from kn_attrib.evaluation.vocabulary import USED
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Prompt, Skipped, Split, Text, by_text, left_out
from kn_attrib.facts.repeats import REPEATS
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.score import SkippedPromptWarning

NO_HELD_OUT = "without held-out text"
DO = {
    USED: "known, with texts on both sides",
    NO_HELD_OUT: "without held-out text (add 'held_out': sentences to judge on, other than the prompts)",
    "unusable": "without a prompt or without a held-out text that this model can be asked (kn-attrib facts --model says"
    " why)",
    "unknown": "unknown: the model's first choice is another word in too many prompts (see kn-attrib facts --model)",
    "ambiguous": "ambiguous: several answers are right (leave the alternatives out, or keep 'ambiguous' facts)",
    "leaking": "leaking: the answer is inside the subject (take other subjects, or keep 'leaking' facts)",
    "limit": "known and not asked for",
}
"""What is said of facts in an error, by their status (facts that never had a held-out text by a cause of their own)."""


@dataclass(frozen=True)
class Candidate:
    """A fact with its encoded prompts and how well the model knows it.

    Attributes
    ----------
    prompts, held_out : encoded texts of the two splits.
    correct : share of the attribution prompts that are answered rightly.
    p_prompts, p_held_out : mean probability of the answer; of held-out prompts only where the fact is used.
    status : a key of `vocabulary.REASONS`.
    """

    fact: Fact
    prompts: tuple[Text, ...]
    held_out: tuple[Text, ...]
    skipped: tuple[Skipped, ...]
    correct: float
    p_prompts: float
    p_held_out: float
    status: str


def _cause(candidate: Candidate) -> str:
    return NO_HELD_OUT if candidate.status == "unusable" and not candidate.fact.held_out else candidate.status


def queries_of(facts: Iterable[Candidate]) -> list[Prompt]:
    """The attribution queries of some facts."""
    return [query for c in facts for text in c.prompts for query in text.queries]


@dataclass(frozen=True)
class Selection:
    """All facts given, triaged.

    Attributes
    ----------
    candidates : every fact, in order.
    only : id of the only fact that was asked for, if it was one.
    """

    candidates: tuple[Candidate, ...]
    only: str = ""

    @property
    def targets(self) -> tuple[Candidate, ...]:
        """Facts that are scored and intervened on."""
        return tuple(c for c in self.candidates if c.status == USED)

    @property
    def asked(self) -> tuple[Candidate, ...]:
        """The one fact that was asked for, or all."""
        return tuple(c for c in self.candidates if self.only in ("", c.fact.id))

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """Facts that may serve as controls: the targets, and those beyond the limit."""
        return tuple(c for c in self.candidates if c.status in (USED, "limit"))

    @property
    def relations(self) -> dict[str, str]:
        """Each target's relation."""
        return {c.fact.id: c.fact.relation for c in self.targets}

    def to_frame(self) -> pd.DataFrame:
        """One row per fact: triple, status, prompts used and left out, what the model knows."""
        frame: pd.DataFrame = pd.DataFrame(
            {
                "fact": c.fact.id,
                "relation": c.fact.relation,
                "subject": c.fact.subject,
                "answer": c.fact.answer,
                "status": c.status,
                "prompts": len(c.prompts),
                "held_out": len(c.held_out),
                "skipped": len(c.skipped),
                "skip_reason": c.skipped[0].reason if c.skipped else "",
                "correct": c.correct,
                "p_prompts": c.p_prompts,
                "p_held_out": c.p_held_out,
            }
            for c in self.candidates
        )
        return frame

    def no_facts(self, message: str) -> FactError:
        """The error for a run that is left without a fact: how many are what, what to do, and the first reason."""
        counts = Counter(map(_cause, self.asked))
        said = "; ".join(f"{n} {DO[cause]}" for cause, n in counts.items()) or "there are none"
        reason = next((f" The first text left out: {c.skipped[0].reason}" for c in self.asked if c.skipped), "")
        return FactError(f"{message}: {said}.{reason}")


def select_facts(
    model: NeuronModel,
    facts: FactSet,
    *,
    limit: int | None = None,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    keep: Sequence[str] = (),
    only: str = "",
    max_rows: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Selection:
    """Triage facts for one model; of texts that are the same for it, a warning says how many were left out.

    Parameters
    ----------
    limit : most facts to use as targets, taken from the relations in turn.
    max_prompts : most attribution prompts of a fact (the first ones that this model can be asked).
    known_share : a fact is known if its answer is the most likely token (each of its tokens, given the gold ones before
        it) in at least this share of its attribution prompts; held-out prompts have no say, so that evaluation is not
        selected on.
    only : id of the only target, in place of ``limit``; the other facts are as those beyond a limit.
    keep : reasons (``"unknown"``, ``"ambiguous"``, ``"leaking"``) that shall not exclude a fact.

    Raises
    ------
    ConfigError : a number is out of range.
    """
    for name, value in (("limit", limit), ("max_prompts", max_prompts)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1, or None for all.")
    prompts, without_prompt = _encode(model, facts, "prompts", max_prompts)
    held_out, without_held_out = _encode(model, facts, "held_out", None)
    _say_repeats(facts, [*without_prompt.values(), *without_held_out.values()])
    answers = _ask(model, prompts, max_rows, progress)
    candidates = []
    for fact in facts:
        own = tuple(prompts.get(fact.id, ()))
        judged = tuple(held_out.get(fact.id, ()))
        p, correct = answers.get(fact.id, (np.nan, 0.0))
        without = without_prompt.get(fact.id, ()), without_held_out.get(fact.id, ())
        # The first reason is shown: what a fact without held-out texts lacks is not one more prompt.
        first, then = reversed(without) if own and not judged else without
        candidate = Candidate(
            fact=fact,
            prompts=own,
            held_out=judged,
            skipped=(*first, *then),
            correct=correct,
            p_prompts=p,
            p_held_out=np.nan,
            status=_status(fact, bool(own and judged), correct >= known_share, keep),
        )
        candidates.append(candidate)
    limited = _limited(candidates, limit, only)
    # Asked of the facts that are judged alone: with many facts the others would take longer than everything else.
    used = {c.fact.id: list(c.held_out) for c in limited if c.status == USED}
    p_held_out = {fact: p for fact, (p, _) in _ask(model, used, max_rows, progress).items()}
    return Selection(tuple(replace(c, p_held_out=p_held_out.get(c.fact.id, np.nan)) for c in limited), only)


def _encode(
    model: NeuronModel, facts: FactSet, split: Split, most: int | None
) -> tuple[dict[str, list[Text]], dict[str, list[Skipped]]]:
    """Texts of each fact, at most so many, and those that cannot be put to the model."""
    encoding = model.encoder.encode_all(facts, split)
    texts: dict[str, list[Text]] = defaultdict(list)
    skipped: dict[str, list[Skipped]] = defaultdict(list)
    for text in encoding.texts:
        if most is None or len(texts[text.fact.id]) < most:
            texts[text.fact.id].append(text)
    for each in encoding.skipped:
        skipped[each.fact].append(each)
    return texts, skipped


def _say_repeats(facts: FactSet, skipped: Sequence[Sequence[Skipped]]) -> None:
    """Warn of texts that are left out because others are the same: unlike other causes, a fault of the facts."""
    repeats = [each for some in skipped for each in some if each.cause in REPEATS]
    if repeats:
        total = sum(len(fact.prompts) + len(fact.held_out) for fact in facts)
        warnings.warn(left_out(repeats, total - len(repeats)), SkippedPromptWarning, stacklevel=3)


def _ask(
    model: NeuronModel,
    texts: dict[str, list[Text]],
    max_rows: int,
    progress: Callable[[int], object] | None,
) -> dict[str, tuple[float, float]]:
    """Mean probability of the answer and share of prompts where each of its tokens is the most likely, per fact."""
    queries = [query for group in texts.values() for text in group for query in text.queries]
    logprob = torch.zeros(len(queries), dtype=torch.float64)
    top_tokens = torch.zeros_like(logprob)
    for indices, batch in model.batches(queries, max_rows):
        answer = model.answers(batch)
        logprob[indices] = answer.logprob.cpu().double()
        top_tokens[indices] = (answer.rank == 1).cpu().double()
        if progress is not None:
            progress(len(indices))
    probability = by_text(logprob, queries).exp().numpy()
    top = (by_text(top_tokens, queries, mean=True) > 1 - 1e-9).double().numpy()
    answers, start = {}, 0
    for fact, group in texts.items():
        part = slice(start, start + len(group))
        answers[fact] = (float(probability[part].mean()), float(top[part].mean()))
        start += len(group)
    return answers


def _status(fact: Fact, usable: bool, known: bool, keep: Sequence[str]) -> str:
    if not usable:
        return "unusable"
    reasons = {"unknown": not known, "ambiguous": fact.is_ambiguous, "leaking": fact.leaks_answer}
    return next((reason for reason, holds in reasons.items() if holds and reason not in keep), USED)


def _limited(candidates: list[Candidate], limit: int | None, only: str) -> tuple[Candidate, ...]:
    used = FactSet(tuple(c.fact for c in candidates if c.status == USED))
    if not only and (limit is None or len(used) <= limit):
        return tuple(candidates)
    chosen = {only} if only else {fact.id for fact in used.spread(limit or len(used))}
    beyond = [c for c in candidates if c.status == USED and c.fact.id not in chosen]
    replaced = {c.fact.id: replace(c, status="limit") for c in beyond}
    return tuple(replaced.get(c.fact.id, c) for c in candidates)
