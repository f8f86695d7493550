"""Texts of a fact that one model cannot tell apart: each is used once, and never both to attribute and to evaluate."""

from __future__ import annotations

from collections.abc import Sequence

from kn_attrib.errors import PromptError
from kn_attrib.facts.prompts import Prompt, Split

Input = tuple[tuple[object, ...], ...]

REPEATED = "repeated text"
NOT_HELD_OUT = "held-out text is a prompt"
REPEATS = (REPEATED, NOT_HELD_OUT)
"""Causes for which a text is left out because another one of its fact is the same for the model."""


class Repeats:
    """The inputs that the texts of one fact have made so far.

    Texts are the same where the model reads the same tokens and is asked for the same ones: they may differ after the
    slot (causal models), in letter case (uncased tokenizers), in spaces.
    """

    def __init__(self) -> None:
        self._seen: dict[Input, tuple[Split, str]] = {}

    def add(self, queries: Sequence[Prompt], split: Split) -> None:
        """Take up a text by its queries.

        Raises
        ------
        PromptError : the same input was taken up before; the cause is one of `REPEATS`.
        """
        given = tuple((query.source, query.input_ids, query.position, query.answer_id) for query in queries)
        if given not in self._seen:
            self._seen[given] = split, queries[0].text
            return
        first, other = self._seen[given]
        fact, text = queries[0].fact.id, queries[0].text
        if first == split:
            raise PromptError(
                f"fact {fact!r}: {text!r} is the same input for this model as {other!r}, also of its {split!r}; it is "
                "counted once. Rephrase it, or take it out.",
                cause=REPEATED,
            )
        raise PromptError(
            f"fact {fact!r}: held-out {text!r} is the same input for this model as the prompt {other!r}; a text may "
            "attribute or evaluate, not both. Rephrase it, or take it out.",
            cause=NOT_HELD_OUT,
        )
