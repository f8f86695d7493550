"""What is hidden in a text, and what is left of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from kn_attrib.evaluation.firing.holes import (
    FIRST_WORDS,
    Hole,
    name_hidden,
    shortened,
    without_repeats,
    without_words,
    word_hidden,
)
from kn_attrib.facts.prompts import Kind

TEXT = "Rome Statute: signed in Rome, the old Rome."


def test_the_answer_is_hidden_where_it_stands_first_outside_the_subject() -> None:
    assert name_hidden(TEXT, "Rome", "masked", "Rome Statute") == Hole("Rome Statute: signed in ", ", the old Rome.")
    assert name_hidden(TEXT, "Rome", "causal", "Rome Statute") == Hole("Rome Statute: signed in ", "")
    assert name_hidden(TEXT, "Paris", "masked") is None
    assert name_hidden(TEXT, "Rome", "masked") == Hole("", " Statute: signed in Rome, the old Rome.")
    assert name_hidden(TEXT, "Rome", "causal") is None  # nothing is left to predict from


def test_a_hidden_name_is_not_left_elsewhere() -> None:
    hole = name_hidden(TEXT, "Rome", "masked", "Rome Statute")
    assert hole is not None
    assert hole.text == "Rome Statute: signed in [Y], the old Rome."
    assert without_repeats(hole, "Rome") == Hole("Rome Statute: signed in ", ", the old ")
    assert hole.shows("Statute")
    assert not hole.shows("sign")


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_a_random_word_is_one_of_the_first_and_not_the_subject(kind: Kind) -> None:
    words = [f"w{i}" for i in range(FIRST_WORDS + 5)]
    text = " ".join([*words[:2], "New", "York's", *words[2:]])
    rng = np.random.default_rng(0)
    found = [word_hidden(text, kind, rng, "New York") for _ in range(4_000)]
    assert all(hole is not None for hole in found)
    places = Counter(len(hole.before.split()) for hole in found if hole is not None)
    first = kind == "causal"
    # As in the authors' code the subject counts as one word.
    assert sorted(places) == [place for place in range(first, FIRST_WORDS + 1) if place not in (2, 3)]
    n = len(places)
    assert max(places.values()) < 4_000 / n + 6 * (4_000 / n) ** 0.5  # uniform
    hole = found[0]
    assert hole is not None
    assert (hole.after == "") == first


def test_no_word_is_left_to_hide() -> None:
    rng = np.random.default_rng(0)
    assert word_hidden("New York", "masked", rng, "New York") is None
    assert word_hidden("", "masked", rng) is None
    assert word_hidden("Alone", "causal", rng) is None


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        (2, 1, Hole("three  four ", " five,")),
        (9, 9, Hole("one two three  four ", " five, six")),
        (0, 2, Hole("", " five, six")),
        (1, 0, Hole("four ", "")),
    ],
)
def test_texts_are_cut_around_the_hole(before: int, after: int, left: Hole) -> None:
    assert shortened(Hole("one two three  four ", " five, six"), before, after) == left


def test_words_are_taken_out_by_number() -> None:
    hole = Hole("The capital of Peru is ", ", the town Lima.")
    assert hole.words == 9
    assert without_words(hole, {1, 6}) == Hole("The of Peru is ", ", town Lima.")
    assert without_words(hole, {4}) == Hole("The capital of Peru ", ", the town Lima.")
    assert without_words(hole, set()) == hole
