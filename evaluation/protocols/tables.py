"""Tables of the two protocols, as they are printed and published."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.text import TitledTable

DELETION = (
    ("self", "accuracy_change", True, "self accuracy"),
    ("self", "logprob_change", False, "self log p"),
    ("held_out", "accuracy_change", True, "held-out accuracy"),
    ("negative", "accuracy_change", True, "other facts' accuracy"),
    ("text", "perplexity_change", False, "perplexity"),
)
"""Group, metric, whether in percent, and title of each column of `deletion_table`."""


def injection_table(result: ProtocolResult, ratio: float, scope: str = "layer", truth: str = "all") -> pd.DataFrame:
    """Methods × k: recall with its interval as text, and in the last line what a random ranking finds on average.

    Parameters
    ----------
    result : of `run_injection`.
    ratio : share of neurons injected into.
    scope : ``"layer"`` (top k % of each layer) or ``"model"``.
    truth : ``"all"``, ``"changed"`` or ``"speaking"`` neurons (see `finetune.Injection`).

    Raises
    ------
    ConfigError : no fact was injected at that ratio, or a value is unknown.
    """
    table: pd.DataFrame = result.table("k", ratio=ratio, scope=scope, truth=truth, metric="recall")
    rows = result.rows[(result.rows.ratio == ratio) & (result.rows.scope == scope)]
    chance = rows.groupby("k").chance.mean()
    for k in table.columns:
        table[k] = table[k].str.replace("+", "", regex=False).str.replace(" %", "", regex=False)
    table.loc["(chance)"] = [f"{100 * chance[k]:.1f}" for k in table.columns]
    table.columns = pd.Index([f"recall@{100 * k:g} %" for k in table.columns])
    return table


def deletion_table(result: ProtocolResult, ratio: float) -> pd.DataFrame:
    """Methods × what dropping their neurons changes, with intervals as text; accuracies in percent.

    Parameters
    ----------
    result : of `run_deletion`.
    ratio : share of each layer's neurons dropped.

    Raises
    ------
    ConfigError : the ratio was not run.
    """
    parts: dict[str, pd.Series] = {}
    for group, metric, percent, title in DELETION:
        if (result.rows.group == group).any():
            column = result.table("metric", percent, ratio=ratio, group=group, metric=metric)[metric]
            parts[title] = column.str.replace(" %", "")
    table: pd.DataFrame = pd.DataFrame(parts)
    return table


def before_deletion(result: ProtocolResult) -> str:
    """What there was before, in words."""
    rows = result.rows.drop_duplicates(["fact", "group", "metric"])
    means = rows[rows.metric.str.endswith("_before")].groupby(["group", "metric"]).value.mean()
    groups = [group for group in ("self", "held_out", "negative") if (group, "accuracy_before") in means.index]
    found = [f"{group} accuracy {means[group, 'accuracy_before']:.1%}" for group in groups]
    if ("text", "perplexity_before") in means.index:
        found.append(f"perplexity {means['text', 'perplexity_before']:.2f}")
    return "before: " + ", ".join(found).replace("held_out", "held-out")


def injection_tables(result: ProtocolResult) -> Iterator[TitledTable]:
    """What is printed of INJ: recall at each ratio, of all neurons injected into and of those that speak."""
    name = result.manifest["model"]["name"]
    for ratio in result.manifest["settings"]["ratios"]:
        reached, tried = (result.manifest[each][str(ratio)] for each in ("reached", "tried"))
        what = f"{name}, {ratio:.1%} of the neurons: {reached} of {tried} facts injected"
        if not reached:
            yield TitledTable(f"{what}; nothing to find. Try more --steps, a higher --rate or a higher --ratio.")
            continue
        for truth, of in (("all", "all neurons injected into"), ("speaking", "those active at the answer position")):
            found = result.rows[(result.rows.ratio == ratio) & (result.rows.truth == truth)]
            if found.value.isna().all():
                yield TitledTable(f"{what}; {of}: none.")
                continue
            n = int(result.cell(ratio=ratio, truth=truth).n.max())
            title = f"{what}. Recall in each layer's top k %, of {of} (n = {n}), in %: mean [95 % interval]"
            yield TitledTable(title, injection_table(result, ratio, truth=truth))


def deletion_tables(result: ProtocolResult) -> Iterator[TitledTable]:
    """What is printed of DEL: what dropping each method's neurons changes, at each ratio."""
    name = result.manifest["model"]["name"]
    end = f"({before_deletion(result)}). Change, accuracies in %: mean [95 % interval]"
    for ratio in result.manifest["settings"]["ratios"]:
        yield TitledTable(f"{name}, the top {ratio:.1%} of each layer dropped {end}", deletion_table(result, ratio))
