"""How many facts, of how many relations, a number rests on, and how many a verdict takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAST_RELATIONS = 5
"""Fewest relations of a verdict. An interval from resampled relations ends within their own means, so it misses the
truth where all of them fall on one side of it: with r relations as often as ``2/2^r``, half the time for two, 6 % for
five, the first that is near the 5 % of its name."""
LEAST_FACTS = 10
"""Fewest facts of a verdict: with one fact of each of five relations a 95 % interval holds the truth 83 times of 100,
with two of each about 89 times."""


class Sample(NamedTuple):
    """What a number rests on."""

    facts: int
    relations: int

    @classmethod
    def of(cls, relations: Sequence[str]) -> Sample:
        """Of facts with these relations.

        >>> Sample.of(["capital", "capital", "currency"])
        Sample(facts=3, relations=2)
        """
        return cls(len(relations), len(set(relations)))

    @property
    def enough(self) -> bool:
        """A verdict may rest on it."""
        return self.facts >= LEAST_FACTS and self.relations >= LEAST_RELATIONS

    def __str__(self) -> str:
        """``n = 48 of 12 relations``."""
        return f"n = {self.facts} of {self.relations} relation{'' if self.relations == 1 else 's'}"

    @property
    def too_few(self) -> str:
        """What is said where it is not enough.

        >>> Sample(1, 1).too_few
        'too few facts to tell (n = 1 of 1 relation)'
        """
        return f"too few facts to tell ({self})"
