"""Texts with a hole where neurons are read: what is hidden there, and what of the text is left to see."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from kn_attrib.evaluation.firing.texts import place_of
from kn_attrib.facts.facts import SLOT
from kn_attrib.facts.prompts import Kind

FIRST_WORDS = 50
"""A random word is one of the first so many of its text, as in the authors' code."""


@dataclass(frozen=True)
class Hole:
    """A text without what stood at one place.

    Attributes
    ----------
    before, after : what is left of it; causal models see nothing of what comes after.
    """

    before: str
    after: str

    @property
    def text(self) -> str:
        """With the slot in the hole's place."""
        return f"{self.before}{SLOT}{self.after}"

    @property
    def words(self) -> int:
        """How many words are left."""
        return len(self.before.split()) + len(self.after.split())

    def shows(self, name: str) -> bool:
        """Whether a name is left in the text."""
        return any(place_of(name, part) is not None for part in (self.before, self.after))


def hole_at(text: str, place: tuple[int, int], kind: Kind) -> Hole:
    """The text with a hole at some characters, as a model of a kind sees it."""
    return Hole(text[: place[0]], "" if kind == "causal" else text[place[1] :])


def name_hidden(text: str, name: str, kind: Kind, outside: str = "") -> Hole | None:
    """The text with a name's first occurrence hidden; None where it does not stand, or a causal model sees nothing.

    Parameters
    ----------
    outside : a name; what stands within it does not count.
    """
    place = place_of(name, text, outside)
    return None if place is None else _seen(hole_at(text, place, kind), kind)


def word_hidden(text: str, kind: Kind, rng: np.random.Generator, outside: str = "") -> Hole | None:
    """The text with one of its first `FIRST_WORDS` words hidden, drawn at random; None where there is none to hide.

    Parameters
    ----------
    outside : a name whose words are not hidden.
    """
    masked = text.replace(outside, "\0" * len(outside)) if outside else text
    words = list(re.finditer(r"\S+", masked))[:FIRST_WORDS]
    # A causal model reads what comes before: the first word cannot be hidden from it.
    places = [found.span() for found in words[kind == "causal" :] if "\0" not in found.group()]
    return hole_at(text, places[int(rng.integers(len(places)))], kind) if places else None


def without_repeats(hole: Hole, name: str) -> Hole:
    """The hole with the text cut off before the hidden name's next occurrence."""
    place = place_of(name, hole.after)
    return hole if place is None else replace(hole, after=hole.after[: place[0]])


def shortened(hole: Hole, before: int, after: int) -> Hole:
    """At most so many words next to the hole on either side."""
    left, right = _words(hole.before)[::-1][:before], _words(hole.after)[:after]
    start = left[-1][0] if left else len(hole.before)
    return Hole(hole.before[start:], hole.after[: right[-1][1] if right else 0])


def without_words(hole: Hole, dropped: Collection[int]) -> Hole:
    """The hole's text without some of its words, which count through what comes before and behind it."""
    first = len(_words(hole.before))
    before = _without(hole.before, {number for number in dropped if number < first})
    return Hole(before, _without(hole.after, {number - first for number in dropped if number >= first}))


def _without(text: str, dropped: Collection[int]) -> str:
    for number, (start, end) in reversed(list(enumerate(_words(text)))):
        if number in dropped:
            # With the space behind it: the one before it stays where the hole follows.
            text = text[:start] + text[end:].removeprefix(" ")
    return text


def _words(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in re.finditer(r"\S+", text)]


def _seen(hole: Hole, kind: Kind) -> Hole | None:
    return None if kind == "causal" and not hole.before.strip() else hole
