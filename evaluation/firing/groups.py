"""The groups of texts of a fact: the published design, and one in which nothing but the group differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from kn_attrib.evaluation.firing.holes import (
    Hole,
    name_hidden,
    shortened,
    without_repeats,
    without_words,
    word_hidden,
)
from kn_attrib.evaluation.firing.texts import WORD, Texts, place_of
from kn_attrib.facts.facts import SLOT, Fact, FactSet
from kn_attrib.facts.prompts import Kind
from kn_attrib.randomness import numpy_generator

PUBLISHED, UNCONFOUNDED = "published", "unconfounded"
DESIGNS = {
    PUBLISHED: {
        "subject and answer": "texts with both; the answer is hidden",
        "subject": "texts with the subject; a random word is hidden",
        "random": "any texts; a random word is hidden",
    },
    UNCONFOUNDED: {
        "subject and answer": "texts with both; the answer is hidden",
        "answer": "texts with the answer, which is hidden, and not the subject",
        "subject": "texts with the subject and not the answer; another fact's answer is hidden",
        "neither": "texts with another answer of the relation, which is hidden, and with neither",
        "another subject": "the first texts, with another subject in the place of the subject",
        "without relation words": "the first texts, without the words that express the relation",
        "without other words": "the same texts, without as many other words",
    },
}
"""Design -> its groups, and what they hold."""
Groups = dict[str, list[Hole]]
MOST_CANDIDATES = 200
"""Texts among which those of the right length are looked for."""


@dataclass(frozen=True)
class Grouping:
    """The groups of texts of facts.

    Parameters
    ----------
    texts : from which all groups are taken.
    facts : all facts, whose subjects and answers stand in for others.
    kind : of the model.
    most : texts of each group.
    words : a text has at most so many on either side of what is hidden (unconfounded design).
    seed : of what is drawn.
    """

    texts: Texts
    facts: FactSet
    kind: Kind
    most: int
    words: int
    seed: int

    @cached_property
    def _related(self) -> dict[str, list[Fact]]:
        return {relation: list(self.facts.of(relation)) for relation in self.facts.relations}

    @cached_property
    def _answers(self) -> list[str]:
        return list(dict.fromkeys(fact.answer.strip() for fact in self.facts))

    def groups(self, fact: Fact) -> dict[str, Groups]:
        """The groups of one fact, by design; a design is empty where there is no text of the fact itself."""
        rng = numpy_generator(self.seed, "texts", fact.id)
        return {PUBLISHED: self._published(fact, rng), UNCONFOUNDED: _Unconfounded(self, fact, rng).groups()}

    def _published(self, fact: Fact, rng: np.random.Generator) -> Groups:
        bag = self.texts.bag(fact)
        both = self._some(name_hidden(t, fact.answer, self.kind, fact.subject) for t in bag.both)
        subject = self._some(word_hidden(t, self.kind, rng, fact.subject) for t in bag.subject)
        if not both or not subject:
            return {}
        return dict(zip(DESIGNS[PUBLISHED], (both, subject, self.random(len(both), rng)), strict=True))

    def random(self, n: int, rng: np.random.Generator) -> list[Hole]:
        """Random texts, each with a random word hidden."""
        drawn = rng.permutation(len(self.texts.texts))
        return self._some((word_hidden(self.texts.texts[i], self.kind, rng) for i in drawn), n)

    def _some(self, holes: Iterable[Hole | None], most: int | None = None) -> list[Hole]:
        found = list[Hole]()
        for hole in holes:
            if hole is not None:
                found.append(hole)
            if len(found) == (self.most if most is None else most):
                break
        return found

    def others_of(self, fact: Fact) -> list[Fact]:
        """Facts of the relation with another subject and another answer, neither of which the fact's names hold."""
        right = {answer.strip() for answer in (fact.answer, *fact.alternatives)}
        return [
            other
            for other in self._related[fact.relation]
            if other.answer.strip() not in right and not _overlap(other, fact)
        ]

    def other_answers(self, fact: Fact) -> tuple[list[str], list[str]]:
        """Answers that are wrong for a fact: those of its relation, and those of all."""
        own = list(dict.fromkeys(other.answer.strip() for other in self.others_of(fact)))
        right = {answer.strip() for answer in (fact.answer, *fact.alternatives)}
        return own, [answer for answer in self._answers if answer not in right]


def _overlap(first: Fact, second: Fact) -> bool:
    names = [(a, b) for a in (first.subject, first.answer) for b in (second.subject, second.answer)]
    return any(place_of(a, b) or place_of(b, a) for a, b in names)


@dataclass(frozen=True)
class _Unconfounded:
    """The unconfounded design for one fact."""

    of: Grouping
    fact: Fact
    rng: np.random.Generator

    def groups(self) -> Groups:
        base = self._base()
        if not base:
            return {}
        found = [
            base,
            self._matched(base, self._holding([self.fact.answer])),
            self._matched(base, self._with_subject(), self.fact.subject),
            self._matched(base, self._holding(self.of.other_answers(self.fact)[0])),
            self._another_subject(base),
            *self._without_words(base),
        ]
        return dict(zip(DESIGNS[UNCONFOUNDED], found, strict=True))

    def _hidden(self, text: str, name: str) -> Hole | None:
        hole = name_hidden(text, name, self.of.kind, self.fact.subject)
        return None if hole is None else without_repeats(hole, name)

    def _base(self) -> list[Hole]:
        """The fact's own texts, cut short, with the subject still in them and the answer nowhere."""
        found = list[Hole]()
        for text in self.of.texts.bag(self.fact).both:
            hole = self._hidden(text, self.fact.answer)
            short = None if hole is None else shortened(hole, self.of.words, self.of.words)
            if short is not None and short.shows(self.fact.subject):
                found.append(short)
        return found[: self.of.most]

    def _holding(self, names: Sequence[str]) -> list[Hole]:
        """Texts of other subjects in which one of some names is hidden, and neither subject nor answer is left."""
        found = list[Hole]()
        for name in self.rng.permutation(np.array(names, dtype=object)):
            texts = self.of.texts.holding(name)
            for number in self.rng.permutation(len(texts)):
                hole = None if place_of(self.fact.subject, texts[number]) else self._hidden(texts[number], name)
                if hole is not None and not hole.shows(self.fact.answer):
                    found.append(hole)
                if len(found) == MOST_CANDIDATES:
                    return found
        return found

    def _with_subject(self) -> list[Hole]:
        """Texts with the subject in which another answer is hidden: of the relation if there is one, else of any."""
        fact, found = self.fact, list[Hole]()
        bag = self.of.texts.bag(fact)
        for text in dict.fromkeys((*bag.subject, *self.of.texts.holding(fact.subject))):
            if place_of(fact.answer, text):
                continue
            for names in self.of.other_answers(fact):
                holes = (self._hidden(text, name) for name in _standing(names, text, fact.subject))
                hole = next((hole for hole in holes if hole is not None and hole.shows(fact.subject)), None)
                if hole is not None:
                    found.append(hole)
                    break
        return found

    def _matched(self, base: Sequence[Hole], found: Sequence[Hole], kept: str = "") -> list[Hole]:
        """For each of some texts the one that is nearest to it in length, cut to it and with a name still in it."""
        left, chosen = list(found), list[Hole]()
        for hole in base:
            before, after = len(hole.before.split()), len(hole.after.split())
            cut = [shortened(other, before, after) for other in left]
            usable = [i for i, other in enumerate(cut) if other.words and (not kept or other.shows(kept))]
            if not usable:
                break
            best = min(usable, key=lambda i: abs(hole.words - cut[i].words))
            chosen.append(cut[best])
            del left[best]
        return chosen

    def _another_subject(self, base: Sequence[Hole]) -> list[Hole]:
        others = self.of.others_of(self.fact)
        if not others:
            return []
        drawn = [others[int(self.rng.integers(len(others)))].subject for _ in base]
        old = self.fact.subject
        return [
            Hole(hole.before.replace(old, new), hole.after.replace(old, new))
            for hole, new in zip(base, drawn, strict=True)
        ]

    def _without_words(self, base: Sequence[Hole]) -> tuple[list[Hole], list[Hole]]:
        """Texts without the relation's words, and the same without as many others."""
        relation = relation_words(self.fact)
        subject = set(WORD.findall(self.fact.subject.casefold()))
        without, control = list[Hole](), list[Hole]()
        for hole in base:
            words = [set(WORD.findall(word.casefold())) for word in f"{hole.before} {hole.after}".split()]
            own = [i for i, word in enumerate(words) if word & relation]
            others = [i for i, word in enumerate(words) if word and not word & (relation | subject)]
            if own and len(others) >= len(own):
                without.append(without_words(hole, own))
                control.append(without_words(hole, self.rng.choice(others, len(own), replace=False).tolist()))
        return without, control


def relation_words(fact: Fact) -> set[str]:
    """The words of a fact's texts that express its relation: not of its names, and no function words.

    >>> sorted(relation_words(Fact("a", "capital", "Peru", "Lima", ("The capital city of Peru is [Y].",))))
    ['capital', 'city']
    """
    texts = (text.replace(fact.subject, " ").replace(SLOT, " ") for text in (*fact.prompts, *fact.held_out))
    words = {word for text in texts for word in WORD.findall(text.casefold())}
    names = set(WORD.findall(f"{fact.subject} {fact.answer}".casefold()))
    return {word for word in words - names if word not in ENGLISH_STOP_WORDS}


def _standing(names: Sequence[str], text: str, outside: str) -> list[str]:
    """The names that stand in a text, the one nearest to its end first: there is most to read before it."""
    words = set(WORD.findall(text))
    places = {name: place_of(name, text, outside) for name in names if words.issuperset(WORD.findall(name))}
    return sorted((n for n, place in places.items() if place), key=lambda n: -places[n][0])  # type: ignore[index]
