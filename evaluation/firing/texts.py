"""Texts, those that were gathered for facts, and where names stand in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from kn_attrib.facts.facts import Fact

WORD = re.compile(r"\w+")


class Bag(NamedTuple):
    """The texts of one fact.

    Attributes
    ----------
    both : texts with its subject and its answer.
    subject : texts with its subject; as they were gathered, which need not be without the answer.
    """

    both: tuple[str, ...]
    subject: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """Texts without repetition, and those that were gathered for facts.

    Parameters
    ----------
    texts : in order.
    bags : by ``(subject, answer)``; the texts of other facts are looked for among all.
    """

    texts: tuple[str, ...]
    bags: Mapping[tuple[str, str], Bag] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the texts and of what they were gathered for."""
        content = [self.texts, [[*pair, *bag] for pair, bag in sorted(self.bags.items())]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def _by_word(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = defaultdict(set)
        for number, text in enumerate(self.texts):
            for word in WORD.findall(text):
                found[word].add(number)
        return found

    def holding(self, name: str) -> list[str]:
        """The texts in which a name stands, as `place_of` finds it."""
        words = WORD.findall(name)
        numbers = sorted(set.intersection(*(self._by_word.get(word, set()) for word in words))) if words else []
        return [self.texts[number] for number in numbers if place_of(name, self.texts[number])]

    def bag(self, fact: Fact) -> Bag:
        """The texts of a fact: those gathered for it, else all with its subject, with and without its answer."""
        given = self.bags.get((fact.subject, fact.answer.strip()))
        if given is not None:
            return given
        found = self.holding(fact.subject)
        both = tuple(text for text in found if place_of(fact.answer, text, outside=fact.subject))
        return Bag(both, tuple(text for text in found if not place_of(fact.answer, text)))


def place_of(name: str, text: str, outside: str = "") -> tuple[int, int] | None:
    """Where a name stands first in a text, with no letter beside it: its first character, and one more than its last.

    >>> place_of("Rome", "Romeo is in Rome.")
    (12, 16)

    Parameters
    ----------
    outside : a name; what stands within it does not count.
    """
    if outside:
        text = text.replace(outside, "\0" * len(outside))
    found = _pattern(name).search(text)
    return found.span() if found else None


@lru_cache(maxsize=2**14)
def _pattern(name: str) -> re.Pattern[str]:
    # As in the authors' code, which knows the letters from A to Z alone.
    return re.compile(rf"(?<![^\W\d_]){re.escape(name.strip())}(?![^\W\d_])")
