"""The groups of texts of a fact hold what they say, and differ in nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kn_attrib import FactSet, facts_from_templates
from kn_attrib.evaluation.firing.groups import DESIGNS, PUBLISHED, UNCONFOUNDED, Grouping, Groups
from kn_attrib.evaluation.firing.texts import Texts
from kn_attrib.facts.prompts import Kind

FACTS = FactSet(
    (
        *facts_from_templates(
            "capital",
            [("Italy", "Rome"), ("France", "Paris"), ("Spain", "Madrid"), ("Latium", "Rome"), ("New France", "Quebec")],
            ["The capital of [X] is [Y].", "[X]'s seat of government is [Y]."],
        ),
        *facts_from_templates("food", [("Italy", "pasta"), ("Japan", "rice")], ["In [X] people eat [Y]."]),
    )
)
ITALY = FACTS[0]
TEXTS = (
    "They say that the capital of Italy is old Rome, and so it is.",
    "Italy was never ruled from Rome again after that year, said Rome.",
    "Rome is the capital of Italy.",
    "All roads of the world lead to Rome in the end, they say.",
    "The old province of Latium has its seat in Rome today.",
    "In the south of Italy all people eat pasta, every day.",
    "Italy and France: the train goes from Milan to Paris.",
    "The capital of France is the town of Paris.",
    "In the west of Spain, far from Madrid, it rains.",
    "Nothing is told here of anything at all, is it?",
    "The capital of Spain is Madrid, not Rome.",
)


def groups_of(kind: Kind, seed: int = 0, most: int = 10) -> dict[str, Groups]:
    return Grouping(Texts(TEXTS), FACTS, kind, most, 40, seed).groups(ITALY)


def texts_of(groups: Groups, name: str) -> list[str]:
    return [hole.text for hole in groups[name]]


def test_the_published_design() -> None:
    found = groups_of("masked")[PUBLISHED]
    assert list(found) == list(DESIGNS[PUBLISHED])
    assert texts_of(found, "subject and answer") == [
        "They say that the capital of Italy is old [Y], and so it is.",
        "Italy was never ruled from [Y] again after that year, said Rome.",
        "[Y] is the capital of Italy.",
    ]
    assert len(found["random"]) == 3  # as many as in the first
    assert [text.replace("[Y]", "") != text for text in texts_of(found, "subject")] == [True, True]
    assert all("Italy" in text for text in texts_of(found, "subject"))


def test_a_fact_without_texts_of_both_kinds_has_no_published_groups() -> None:
    only = Grouping(Texts(TEXTS[:3]), FACTS, "masked", 10, 40, 0).groups(ITALY)
    assert only[PUBLISHED] == {}
    none = Grouping(Texts(TEXTS[3:]), FACTS, "masked", 10, 40, 0).groups(ITALY)
    assert none == {PUBLISHED: {}, UNCONFOUNDED: {}}


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("seed", range(5))
def test_the_unconfounded_groups_hold_what_they_say(kind: Kind, seed: int) -> None:
    found = groups_of(kind, seed)[UNCONFOUNDED]
    shows = {
        name: ({hole.shows("Italy") for hole in holes}, {hole.shows("Rome") for hole in holes})
        for name, holes in found.items()
    }
    assert all(holes for holes in found.values())
    assert {name: subject for name, (subject, _) in shows.items()} == {
        "subject and answer": {True},
        "answer": {False},
        "subject": {True},
        "neither": {False},
        "another subject": {False},
        "without relation words": {True},
        "without other words": {True},
    }
    assert all(answer == {False} for _, answer in shows.values())  # nowhere to be seen
    hidden = {"another subject": ("France", "Spain")}
    for text in texts_of(found, "another subject"):
        assert any(subject in text for subject in hidden["another subject"])  # not Latium, whose answer is the same


def lengths(holes: Sequence[object]) -> list[tuple[int, int]]:
    return [(len(hole.before.split()), len(hole.after.split())) for hole in holes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_groups_are_never_longer_than_the_facts_own_texts(kind: Kind) -> None:
    found = groups_of(kind)[UNCONFOUNDED]
    own = lengths(found["subject and answer"])
    assert own == ([(9, 5), (5, 5), (0, 5)] if kind == "masked" else [(9, 0), (5, 0)])
    for name in ("answer", "subject", "neither"):
        for (before, after), (most_before, most_after) in zip(lengths(found[name]), own, strict=False):
            assert before <= most_before
            assert after <= most_after
    assert lengths(found["another subject"]) == own
    assert lengths(found["without relation words"])[0] != own[0]
    assert [sum(n) for n in lengths(found["without relation words"])] == [
        sum(n) for n in lengths(found["without other words"])
    ]


def test_only_the_relation_is_taken_out_and_only_other_words() -> None:
    found = groups_of("causal")[UNCONFOUNDED]
    assert texts_of(found, "without relation words") == ["They say that the of Italy is old [Y]"]
    (other,) = texts_of(found, "without other words")
    assert "capital" in other
    assert "Italy" in other
    assert len(other.split()) == 9


def test_the_same_seed_draws_the_same_texts() -> None:
    assert groups_of("masked", seed=3) == groups_of("masked", seed=3)
    assert any(groups_of("masked", seed=3) != groups_of("masked", seed=seed) for seed in range(4, 9))


def test_no_more_texts_than_asked_for() -> None:
    found = groups_of("masked", most=1)
    assert all(len(holes) <= 1 for groups in found.values() for holes in groups.values())


def test_the_subject_group_hides_another_answer_of_the_relation_before_any_other() -> None:
    grouping = Grouping(
        Texts((*TEXTS[:1], "In Italy people eat pasta and dream of Paris.")), FACTS, "causal", 10, 40, 0
    )
    assert texts_of(grouping.groups(ITALY)[UNCONFOUNDED], "subject") == ["In Italy people eat pasta and dream of [Y]"]
