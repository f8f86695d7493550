"""What ``kn-attrib facts --model`` says of many facts: which of them the model knows, and which can be judged."""

from __future__ import annotations

import warnings

import pandas as pd

from kn_attrib.cli import modes, screen
from kn_attrib.display import counted
from kn_attrib.evaluation.measure.known_facts import select_facts
from kn_attrib.evaluation.records.progress import progress_bar
from kn_attrib.evaluation.vocabulary import REASONS, USED
from kn_attrib.facts.facts import FactSet
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.score import SkippedPromptWarning

MOST_LISTED = 40
"""Facts that are listed one by one; of more there is a summary by relation, and the first few."""
FIRST = 20


def show(model: NeuronModel, facts: FactSet) -> None:
    """Ask a model for facts as a comparison does by default, and print what it knows."""
    with (
        progress_bar("asking the model for all facts", None, modes.progress()) as update,
        warnings.catch_warnings(),
    ):
        if len(facts) == 1:  # every text of it is shown, those left out with the reason
            warnings.simplefilter("ignore", SkippedPromptWarning)
        frame = select_facts(model, facts, progress=update).to_frame()
    screen.give(known=frame)
    used = int((frame.status == USED).sum())
    screen.say("")
    if len(frame) > MOST_LISTED:
        screen.show_frame(_by_relation(frame), f"What {model.name} knows, by relation")
        screen.say("")
    listed = frame if len(frame) <= MOST_LISTED else frame.head(FIRST)
    first = "" if len(listed) == len(frame) else f", the first {FIRST}"
    title = f"{used} of {counted(len(frame), 'fact')} can be judged on {model.name}{first}"
    columns = ["fact", "answer", "status", "correct", "p_prompts", "p_held_out"]
    rows = [[*row[:3], *map(_cell, row[3:])] for row in listed[columns].itertuples(index=False)]
    screen.show(rows, [column.replace("_", " ") for column in columns], title)
    screen.say(_legend(frame))


def _by_relation(frame: pd.DataFrame) -> pd.DataFrame:
    """How many facts of each relation there are, how many of each status, and the mean share of right answers."""
    found = [status for status in REASONS if (frame.status == status).any()]
    counts: pd.DataFrame = pd.crosstab(frame.relation, frame.status).reindex(frame.relation.unique())[found]
    counts.insert(0, "facts", counts.sum(axis=1))
    counts["correct"] = frame.groupby("relation").correct.mean().map(_cell)
    return counts


def _cell(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def _legend(frame: pd.DataFrame) -> str:
    """What the columns and the statuses that occur mean."""
    lines = [
        "correct: share of prompts whose right answer is the model's first choice; p: mean probability of the answer",
        *(f"{status}: {why}" for status, why in REASONS.items() if status != USED and (frame.status == status).any()),
    ]
    return "\n".join(lines)
