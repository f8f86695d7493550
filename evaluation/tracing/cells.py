"""One traced prompt as rows: its restored states, their means by role, and the prompt itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kn_attrib.errors import PromptError
from kn_attrib.evaluation.tracing.trace_rows import PROMPTS
from kn_attrib.facts.prompts import Prompt
from kn_attrib.interventions.corrupted_run import Restoration
from kn_attrib.interventions.restoration import Restored

Row = dict[str, Any]
RoleCell = tuple[str, str, int]
"""Kind, role, layer."""


def cell_rows(
    number: int,
    query: Prompt,
    words: Sequence[str],
    found: Restored,
    cells: Sequence[tuple[str, int, Restoration]],
) -> list[Row]:
    """One row for each restored state of a prompt.

    Parameters
    ----------
    words : its tokens as text.
    cells : kind, layer and restoration, in the order of ``found.restored``.
    """
    low = float(found.corrupted.mean())
    means = found.restored.mean(1).tolist()
    spread = (found.restored - found.corrupted).std(1, correction=0).tolist()
    return [
        {
            "fact": query.fact.id,
            "relation": query.fact.relation,
            "prompt": number,
            "kind": kind,
            "token": each.token,
            "text": words[each.token],
            "layer": layer,
            "low": each.low,
            "high": each.high,
            "p": p,
            "effect": p - low,
            "deviation": deviation,
        }
        for (kind, layer, each), p, deviation in zip(cells, means, spread, strict=True)
    ]


def role_means(cells: Sequence[Row], roles: Mapping[str, Sequence[int]]) -> dict[RoleCell, float]:
    """Mean effect over the tokens of each role."""
    table = pd.DataFrame(cells)
    found: dict[RoleCell, float] = {}
    for role, tokens in roles.items():
        means = table[table.token.isin(tokens)].groupby(["kind", "layer"], sort=False).effect.mean()
        found |= {(str(kind), role, int(layer)): float(value) for (kind, layer), value in means.items()}
    return found


def prompt_row(number: int, query: Prompt, span: tuple[int, int], found: Restored, status: str) -> Row:
    """What is kept of a prompt that was run."""
    return {
        "fact": query.fact.id,
        "prompt": number,
        "text": query.text,
        "status": status,
        "p_clean": found.clean,
        "p_corrupted": float(found.corrupted.mean()),
        "samples": len(found.corrupted),
        "tokens": len(query.input_ids),
        "subject_start": span[0],
        "subject_end": span[1],
    }


def untraced(query: Prompt, error: PromptError) -> Row:
    """What is kept of a prompt that cannot be traced."""
    known = {"fact": query.fact.id, "prompt": -1, "text": query.text, "status": error.cause}
    return dict.fromkeys(PROMPTS) | known
