"""Rows of activations by kind of text, and the contrasts between kinds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd

from kn_attrib.evaluation.firing.activations import OTHERS, OWN, STANDARDISED
from kn_attrib.evaluation.firing.groups import PUBLISHED, UNCONFOUNDED
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.statistics.means import relations_of
from kn_attrib.evaluation.statistics.significance import paired_difference

TEXT_COLUMNS = ["fact", "relation", "design", "group", "n", "words", "example"]
LESS = "difference"
"""A contrast of a fact's own neurons less that of the others of their layers."""
CONTRASTS: dict[str, dict[str, tuple[str, ...]]] = {
    PUBLISHED: {
        "the fact": ("subject and answer", "subject"),
        "the fact, against any text": ("subject and answer", "random"),
    },
    UNCONFOUNDED: {
        "the subject": ("subject and answer", "answer"),
        "the answer": ("subject and answer", "subject"),
        "both together": ("subject and answer", "answer", "subject", "neither"),
        "this subject": ("subject and answer", "another subject"),
        "relation words": ("without other words", "without relation words"),
    },
}
"""Design -> what a contrast is of -> its groups: first − second, or (first − second) − (third − fourth)."""


@dataclass(frozen=True)
class FiringRows(Result):
    """Activations of facts' neurons by kind of text, as they were measured.

    Attributes
    ----------
    rows : ``fact, relation, method, design, group, neurons, metric, value``; ``neurons`` is ``"own"`` or
        ``"same layers"``, ``metric`` ``"standardised"`` or ``"activation"`` (see `prompt_types`).
    texts : texts of each fact's groups: ``fact, relation, design, group, n, words, example``.
    manifest : model, facts, texts, settings, methods with their cost, versions, seed.
    """

    rows: pd.DataFrame
    texts: pd.DataFrame
    manifest: dict[str, Any]
    frames: ClassVar[tuple[str, ...]] = ("rows", "texts")
    what: ClassVar[str] = "activation by kind of text"

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Differences between groups of the standardised activation.

        Returns
        -------
        One row per method, design, contrast (keys of `CONTRASTS`) and neurons (``"own"``, ``"same layers"``, or
        ``"difference"``, the first less the second): ``mean, low, high, p`` (95 % bootstrap interval over relations,
        then facts; two-sided sign flips of relations), ``n, relations``. A fact counts where it has all groups.
        """
        some = self.rows[self.rows.metric == STANDARDISED]
        wide = some.pivot_table(
            index=["fact", "relation"], columns=["method", "design", "neurons", "group"], values="value", sort=False
        )
        found = [
            row
            for method in self.methods
            for design, contrasts in CONTRASTS.items()
            for name, groups in contrasts.items()
            for row in self._rows_of(wide, method, design, name, groups)
        ]
        frame: pd.DataFrame = pd.DataFrame(found, columns=CONTRAST_COLUMNS)
        return frame

    def _rows_of(
        self, wide: pd.DataFrame, method: str, design: str, name: str, groups: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        columns = [(method, design, of, group) for of in (OWN, OTHERS) for group in groups]
        if not set(columns) <= set(wide.columns):
            return []
        values = wide[columns].dropna()
        if values.empty:
            return []
        signs = (1, -1) if len(groups) == 2 else (1, -1, -1, 1)
        parts = values.to_numpy().reshape(len(values), 2, len(groups))
        own, others = ((parts[:, of] * signs).sum(1) for of in (0, 1))
        rows = []
        for neurons, first, second in ((OWN, own, 0 * own), (OTHERS, others, 0 * own), (LESS, own, others)):
            gap = paired_difference(first, second, relations_of(values), self.seed)
            cell = {"method": method, "design": design, "contrast": name, "neurons": neurons}
            numbers = {each: getattr(gap, each) for each in ("mean", "low", "high", "p", "n", "relations")}
            rows.append(cell | numbers)
        return rows


CONTRAST_COLUMNS = ["method", "design", "contrast", "neurons", "mean", "low", "high", "p", "n", "relations"]
