"""What stands before and behind a text's slot, and the answer in it."""

from __future__ import annotations

import string
import unicodedata

from kn_attrib.facts.facts import Fact


def parts_of(fact: Fact, before: str) -> tuple[str, str, str]:
    """The text before the slot, the same with the answer, and the answer with the space that it has there.

    One ordinary space before the slot is the answer's, as words are tokenized; any other white space (a newline, a tab,
    a second space, …) belongs to the text.
    """
    one_space = before[-1:] == " " and not before[-2:-1].isspace()
    stem = before[:-1] if one_space else before
    space = " " if one_space or (fact.answer[:1].isspace() and not before[-1:].isspace()) else ""
    answer = space + fact.answer.strip()
    return stem, stem + answer, answer


def says_nothing(character: str) -> bool:
    """White space, or punctuation in any script."""
    return character.isspace() or character in string.punctuation or unicodedata.category(character).startswith("P")
