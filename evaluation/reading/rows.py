"""What was read of a model's neurons, on disk and neuron by neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.statistics.means import summarise_facts


@dataclass(frozen=True)
class ReadingRows(Result):
    """What was read of a model's neurons.

    Attributes
    ----------
    rows : one row per fact, method and measure of its neurons (see `read`): ``fact, relation, method, metric, value``.
    neurons : each fact's neurons by method: ``fact, relation, method, place, layer, neuron, score, activation, sign,
        answer_rank``.
    keys : contexts of the neurons that are shown: ``layer, neuron, rank, activation, text, place, context, word,
        word_id``.
    words : what the shown neurons write: ``layer, neuron, sign, rank, word, word_id, logit, probability``.
    lens : ``fact, relation, layer, logprob, rank``, means over the fact's queries (of ranks, the geometric one).
    agreement : see `agreement_by_layer`.
    calibration : see `calibration`.
    manifest : model, facts, corpus, settings, methods with their cost, versions, seed.
    """

    rows: pd.DataFrame
    neurons: pd.DataFrame
    keys: pd.DataFrame
    words: pd.DataFrame
    lens: pd.DataFrame
    agreement: pd.DataFrame
    calibration: pd.DataFrame
    manifest: dict[str, Any]
    frames: ClassVar[tuple[str, ...]] = ("rows", "neurons", "keys", "words", "lens", "agreement", "calibration")
    what: ClassVar[str] = "reading of neurons"

    def lens_summary(self) -> pd.DataFrame:
        """Mean log-probability of the answer behind each layer, over facts, with 95 % interval."""
        wide = self.lens.pivot_table(index=["fact", "relation"], columns="layer", values="logprob", sort=False)
        found: pd.DataFrame = summarise_facts(wide, self.seed).reset_index()
        return found

    def shown(self, fact: str) -> pd.DataFrame:
        """A fact's neurons, with what activates them and what they write as text.

        Raises
        ------
        ConfigError : the fact was not read.
        """
        known = self.neurons.fact.unique()
        if fact not in known:
            raise ConfigError(unknown("fact", fact, known))
        return self._described(self.neurons[self.neurons.fact == fact])

    def further(self) -> pd.DataFrame:
        """The neurons that were asked for by name, as `shown`."""
        asked = self.manifest["asked"]
        return self._described(pd.DataFrame(asked, columns=["layer", "neuron"]))

    def _described(self, neurons: pd.DataFrame) -> pd.DataFrame:
        keys = _lists(self.keys, "context")
        words = _lists(self.words, "word")
        rows: list[Mapping[str, Any]] = []
        for row in neurons.to_dict("records"):
            where = row["layer"], row["neuron"]
            # Asked for by name, a neuron has the sign of its furthest activation.
            first = self.keys[(self.keys.layer == where[0]) & (self.keys.neuron == where[1])]
            sign = row.get("sign", 1 if first.empty or first.activation.iloc[0] > 0 else -1)
            rows.append(
                {
                    "neuron": f"L{where[0]}:{where[1]}",
                    **{name: row[name] for name in ("method", "place") if name in row},
                    **({"activation": f"{row['activation']:.2f}"} if "activation" in row else {}),
                    **({"answer_rank": f"{row['answer_rank']:,}"} if "answer_rank" in row else {}),
                    "fires on": " | ".join(keys.get(where, ())),
                    "writes": ", ".join(words.get((*where, sign), ())),
                }
            )
        frame: pd.DataFrame = pd.DataFrame(rows).set_index("neuron") if rows else pd.DataFrame()
        return frame


SHOWN = 3
"""Contexts of a neuron that a table shows."""


def _lists(frame: pd.DataFrame, column: str) -> dict[tuple[int, ...], list[str]]:
    """The texts of each neuron (and sign), in order."""
    by = ["layer", "neuron"] + (["sign"] if "sign" in frame else [])
    most = SHOWN if column == "context" else len(frame)
    ends = frame.context + " → " + frame.word if column == "context" else frame[column].str.strip()
    lists: dict[tuple[int, ...], list[str]] = {}
    for key, text in zip(frame[by].itertuples(index=False, name=None), ends, strict=True):
        lists.setdefault(key, []).append(text)
    return {key: texts[:most] for key, texts in lists.items()}
