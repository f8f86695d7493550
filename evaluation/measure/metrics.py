"""Metrics: numbers made from a group's answers before and after an intervention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kn_attrib.evaluation.measure.outcomes import Outcome


def effect(before: Sequence[Outcome], after: Sequence[Outcome]) -> dict[str, float]:
    """Metrics of one group of prompts.

    - ``p_before``, ``p_after``: mean probability of the answer;
    - ``relative_change``: ``p_after / p_before − 1``, the ratio of means;
    - ``mean_relative_change``: the mean over prompts of ``p_after / p_before − 1``, the mean of ratios;
    - ``delta_logprob``: mean change of the natural log-probability;
    - ``perplexity_before``, ``perplexity_after``: of the gold answer, ``exp`` of minus the mean log-probability;
    - ``rank_after``: mean rank of the answer;
    - ``flip``: share of prompts whose most likely token changes.
    """
    logs = np.array([[o.logprob for o in outcomes] for outcomes in (before, after)])
    change = logs[1] - logs[0]
    p_before, p_after = np.exp(logs).mean(1)
    log_before, log_after = logs.mean(1)
    return {
        "p_before": float(p_before),
        "p_after": float(p_after),
        "relative_change": float(p_after / p_before - 1),
        "mean_relative_change": float(np.expm1(change).mean()),
        "delta_logprob": float(change.mean()),
        "perplexity_before": float(np.exp(-log_before)),
        "perplexity_after": float(np.exp(-log_after)),
        "rank_after": sum(o.rank for o in after) / len(after),
        "flip": sum(b.top != a.top for b, a in zip(before, after, strict=True)) / len(after),
    }
