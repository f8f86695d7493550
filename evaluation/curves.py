"""Deletion and insertion curves: the answer without a method's best neurons, and with nothing but them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.effects import Evaluator, Outcome, Single
from kn_attrib.evaluation.statistics import summarise
from kn_attrib.masks import masked_logprob
from kn_attrib.prompts import Text

SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all neurons, as in the Mechanistic Interpretability Benchmark (Mueller et al. 2025)."""
DELETE, KEEP = "delete", "keep"
CURVE = "share="
COLUMNS = ["fact", "relation", "method", "curve", "share", "value"]
ROWS_AT_ONCE = 256


def masks_of(mean: Tensor) -> tuple[list[str], Tensor]:
    """Names and masks ``[mask, layer, neuron]`` of all points of both curves.

    Parameters
    ----------
    mean : scores ``[layer, neuron]``; the highest go (or stay) first, ties: the earlier neuron.
    """
    order = mean.double().flatten().sort(descending=True, stable=True).indices
    names, masks = [], []
    for share in SHARES:
        top = torch.zeros(mean.numel())
        top[order[: round(share * mean.numel())]] = 1
        names += [f"{DELETE} {share}", f"{KEEP} {share}"]
        masks += [1 - top, top]
    return names, torch.stack(masks).view(-1, *mean.shape)


def curve_outcomes(evaluator: Evaluator, texts: Sequence[Text], masks: Tensor) -> list[list[Outcome]]:
    """Outcomes of every text under every mask: mask -> text -> outcome."""
    model = evaluator.model
    jobs = [(m, query) for m in range(len(masks)) for text in texts for query in text.queries]
    found: list[Single] = [(0.0, 0, 0)] * len(jobs)
    for indices, batch in model.batches([query for _, query in jobs], ROWS_AT_ONCE):
        which = torch.tensor([jobs[i][0] for i in indices])
        with torch.no_grad():
            logprobs = masked_logprob(model, batch, masks[which].to(model.device)).tolist()
        for index, logprob in zip(indices, logprobs, strict=True):
            found[index] = (logprob, 0, 0)
    size = sum(len(text) for text in texts)
    return [evaluator.joined(texts, found[m * size : (m + 1) * size]) for m in range(len(masks))]


def curves(comparison: Comparison) -> pd.DataFrame:
    """Faithfulness at each share, fact by fact: ``fact, relation, method, curve, share, value``.

    ``delete``: ``p(without the top share) / p``. ``keep``: ``(p(only the top share) − p₀) / (p − p₀)``, where ``p₀``
    is the answer's probability without any feed-forward neuron; facts that do not need them (``p₀ ≥ p``) are left out.
    """
    rows = comparison.rows
    rows = rows[rows.selection.str.startswith(CURVE) & (rows.metric == "p_after")]
    if not len(rows):
        nothing_measured: pd.DataFrame = pd.DataFrame(columns=COLUMNS)
        return nothing_measured
    wide = rows.assign(share=rows.selection.str.removeprefix(CURVE).astype(float)).pivot_table(
        index=["fact", "relation", "method"], columns=["intervention", "share"], values="value", sort=False
    )
    full, nothing = wide[KEEP][1.0], wide[KEEP][0.0]
    needed = full - nothing > 0
    parts = []
    for curve, values in (
        (DELETE, wide[DELETE].div(full, axis=0)),
        (KEEP, wide[KEEP].sub(nothing, axis=0).div(full - nothing, axis=0)[needed]),
    ):
        long = values.reset_index().melt(id_vars=["fact", "relation", "method"], var_name="share", value_name="value")
        parts.append(long.assign(curve=curve))
    found: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return found


def areas(comparison: Comparison) -> pd.DataFrame:
    """Areas over the share of neurons, by method: mean, 95 % interval and number of facts.

    ``deletion`` (lower is better), ``CPR = ∫ f`` (higher is better) and ``CMD = ∫ |1 − f|`` (lower is better) of the
    faithfulness ``f`` of keeping the top share alone, by the trapezoidal rule.

    Reference
    ---------
    Mueller et al. 2025, *MIB: A Mechanistic Interpretability Benchmark*.
    """
    found = curves(comparison)
    tables = []
    for (method, curve), part in found.groupby(["method", "curve"], sort=False):
        wide = part.pivot_table(index=["fact", "relation"], columns="share", values="value", sort=True)
        x, y = wide.columns.to_numpy(dtype=float), wide.to_numpy()
        if curve == DELETE:
            values = {"deletion": trapezoid(y, x, axis=1)}
        else:
            values = {"CPR": trapezoid(y, x, axis=1), "CMD": trapezoid(np.abs(1 - y), x, axis=1)}
        relations = wide.index.get_level_values("relation").to_series().reset_index(drop=True)
        summary = summarise(pd.DataFrame(values), relations, seed=comparison.manifest["settings"]["seed"])
        tables.append(summary.rename_axis("area").reset_index().assign(method=method))
    result: pd.DataFrame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return result
