"""Deletion and insertion curves of a comparison, and the areas under them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.statistics.means import summarise_facts
from kn_attrib.evaluation.vocabulary import CURVE, DELETE, KEEP

COLUMNS = ["fact", "relation", "method", "curve", "share", "value"]


def curves(comparison: ComparisonRows) -> pd.DataFrame:
    """Faithfulness at each share, fact by fact: ``fact, relation, method, curve, share, value``.

    ``delete``: ``p(without the top share) / p``. ``keep``: ``(p(only the top share) − p₀) / (p − p₀)``, where ``p₀``
    is the answer's probability without any feed-forward neuron; facts that do not need them (``p₀ ≥ p``) are left out.
    """
    rows = comparison.rows
    rows = rows[rows.selection.str.startswith(CURVE) & (rows.metric == "p_after")]
    if not len(rows):
        nothing_measured: pd.DataFrame = pd.DataFrame(columns=COLUMNS)
        return nothing_measured
    case = ["fact", "relation", "method"]
    points = rows.assign(share=rows.selection.str.removeprefix(CURVE).astype(float))
    wide = points.pivot_table(index=case, columns=["intervention", "share"], values="value", sort=False)
    full, nothing = wide[KEEP][1.0], wide[KEEP][0.0]
    needed = full - nothing > 0
    deleted = wide[DELETE].div(full, axis=0)
    kept = wide[KEEP].sub(nothing, axis=0).div(full - nothing, axis=0)[needed]
    parts = []
    for curve, values in ((DELETE, deleted), (KEEP, kept)):
        long = values.reset_index().melt(id_vars=case, var_name="share", value_name="value")
        parts.append(long.assign(curve=curve, share=long.share.astype(float)))
    found: pd.DataFrame = pd.concat(parts, ignore_index=True)[COLUMNS]
    return found


def areas(comparison: ComparisonRows) -> pd.DataFrame:
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
        summary = summarise_facts(pd.DataFrame(values, index=wide.index), comparison.seed)
        tables.append(summary.rename_axis("area").reset_index().assign(method=method))
    result: pd.DataFrame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return result
