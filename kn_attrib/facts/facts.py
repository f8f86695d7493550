"""Facts: a triple and the paraphrases that express it, split into attribution and evaluation prompts."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from kn_attrib.display import LARGE_SHOWN, counted, first_of, html_table
from kn_attrib.errors import FactError, unknown

SLOT = "[Y]"
SUBJECT_SLOT = "[X]"


@dataclass(frozen=True)
class Fact:
    """One fact: ``(subject, relation, answer)`` and the texts that express it.

    Parameters
    ----------
    id : unique name of the fact, e.g. ``"capital:France"``.
    relation, subject, answer : the triple.
    prompts : texts holding the slot ``[Y]`` once where the answer belongs; used for attribution.
    held_out : paraphrases of the same form, used for evaluation only.
    alternatives : other answers that are right too; such a fact is *ambiguous*.

    Raises
    ------
    FactError : a field is empty, a prompt has no slot or two, or a text is in both lists.
    """

    id: str
    relation: str
    subject: str
    answer: str
    prompts: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("prompts", "held_out", "alternatives"):
            object.__setattr__(self, name, _texts(getattr(self, name), self.id, name))
        for name in ("id", "relation", "subject", "answer"):
            value = getattr(self, name)
            if not isinstance(value, str) or _is_blank(value):
                raise FactError(f"fact {self.id!r}: field {name!r} is {value!r}; expected a non-empty text.")
            _check_characters(value, self.id, name)
        if not self.prompts:
            raise FactError(f"fact {self.id!r}: field 'prompts' is an empty list; give at least one text with {SLOT}.")
        for name in ("prompts", "held_out"):
            for text in getattr(self, name):
                if text.count(SLOT) != 1:
                    raise FactError(
                        f"fact {self.id!r}: field {name!r}: {text!r} holds the slot {SLOT} {text.count(SLOT)} times; "
                        "expected exactly once."
                    )
        both = set(self.prompts) & set(self.held_out)
        if both:
            raise FactError(
                f"fact {self.id!r}: {min(both)!r} is in both 'prompts' and 'held_out'; "
                "a text may attribute or evaluate, not both."
            )

    @property
    def is_ambiguous(self) -> bool:
        """More than one answer is right."""
        return bool(self.alternatives)

    @property
    def leaks_answer(self) -> bool:
        """The answer's text occurs inside the subject, so that copying suffices."""
        return self.answer.casefold() in self.subject.casefold()

    def _repr_html_(self) -> str:
        """The triple and the texts, for notebooks."""
        alternatives = [("right too", ", ".join(self.alternatives))] if self.is_ambiguous else []
        rows = [
            ("subject", self.subject),
            ("relation", self.relation),
            ("answer", self.answer),
            *alternatives,
            ("prompts", first_of(self.prompts)),
            ("held out", first_of(self.held_out) or "none"),
        ]
        return html_table(f"Fact {self.id}", rows)


def _is_blank(text: str) -> bool:
    """Nothing, or nothing that can be seen: white space, and marks of format such as U+200B."""
    return all(character.isspace() or unicodedata.category(character) == "Cf" for character in text)


def _check_characters(text: str, fact: str, field: str) -> None:
    # None of them is text: tokenizers fail on halves of surrogate pairs or drop them, NUL ends strings in C, other
    # control characters are dropped by some tokenizers and steer the terminal that a table is printed on.
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cs" or (kind == "Cc" and character not in "\t\n\r"):
            raise FactError(
                f"fact {fact!r}: field {field!r} is {text!r}; expected text without NUL and lone surrogates, and "
                f"without control characters but tabs and line breaks (it holds {character!r})."
            )


def _texts(value: Any, fact: str, field: str) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise FactError(f"fact {fact!r}: field {field!r} is {value!r}; expected a list of texts.")
    texts = tuple(value)
    for text in texts:
        if not isinstance(text, str) or _is_blank(text):
            raise FactError(f"fact {fact!r}: field {field!r} holds {text!r}; expected non-empty texts.")
        _check_characters(text, fact, field)
    return texts


def facts_of(given: object) -> list[Fact]:
    """One fact or several as a list.

    Raises
    ------
    FactError : it is something else, such as the id of a fact.
    """
    if isinstance(given, Fact):
        return [given]
    each = None if isinstance(given, str | bytes) or not isinstance(given, Iterable) else list(given)
    if each is None or not all(isinstance(fact, Fact) for fact in each):
        text = next((part for part in (given, *(each or ())) if isinstance(part, str)), None)
        known = "" if text is None else f" A fact by its id: load_facts(…)[{text!r:.80}]."
        raise FactError(f"facts are {given!r:.80}; expected a Fact or several, as load_facts returns them.{known}")
    return each


@dataclass(frozen=True)
class FactSet(Sequence[Fact]):
    """An ordered collection of facts with unique ids.

    Raises
    ------
    FactError : two facts share an id, or a relation asked for is unknown.
    """

    facts: tuple[Fact, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", tuple(self.facts))
        for fact in self.facts:
            if not isinstance(fact, Fact):
                raise FactError(f"{fact!r} is not a fact; expected kn_attrib.Fact.")
        twice = [name for name, n in Counter(f.id for f in self.facts).items() if n > 1]
        if twice:
            raise FactError(f"fact id {twice[0]!r} occurs more than once; ids must be unique.")

    @overload
    def __getitem__(self, key: int | str) -> Fact: ...
    @overload
    def __getitem__(self, key: slice) -> FactSet: ...
    def __getitem__(self, key: int | str | slice) -> Fact | FactSet:
        if isinstance(key, str):
            if key not in self._by_id:
                raise FactError(unknown("fact", key, self._by_id))
            return self._by_id[key]
        if isinstance(key, slice):
            return FactSet(self.facts[key])
        return self.facts[key]

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __repr__(self) -> str:
        return f"FactSet({len(self)} facts of {len(self.relations)} relations)"

    def _repr_html_(self) -> str:
        """How many facts each relation has, and the first of them, for notebooks."""
        facts: dict[str, list[Fact]] = {}
        for fact in self.facts:
            facts.setdefault(fact.relation, []).append(fact)
        rows = [
            (relation, len(own), "; ".join(f"{fact.subject} → {fact.answer}" for fact in own[:3]))
            for relation, own in facts.items()
        ]
        more = len(rows) - LARGE_SHOWN
        notes = [f"… and {counted(more, 'more relation')}"] if more > 0 else []
        caption = f"{counted(len(self), 'fact')} of {counted(len(facts), 'relation')}"
        return html_table(caption, rows[:LARGE_SHOWN], ("relation", "facts", "the first"), notes)

    @cached_property
    def _by_id(self) -> dict[str, Fact]:
        return {fact.id: fact for fact in self.facts}

    @property
    def relations(self) -> tuple[str, ...]:
        """Relation names in order of first appearance."""
        return tuple(dict.fromkeys(fact.relation for fact in self.facts))

    def of(self, *relations: str) -> FactSet:
        """The facts of the named relations."""
        for name in relations:
            if name not in self.relations:
                raise FactError(unknown("relation", name, self.relations))
        return FactSet(tuple(f for f in self.facts if f.relation in relations))

    def where(self, condition: Callable[[Fact], bool]) -> FactSet:
        """The facts for which the condition holds."""
        return FactSet(tuple(fact for fact in self.facts if condition(fact)))

    def spread(self, limit: int) -> FactSet:
        """At most ``limit`` facts, taken from the relations in turn so that each is represented."""
        if limit < 1:
            raise FactError(f"limit is {limit}; expected at least 1 fact.")
        queues = [[f for f in self.facts if f.relation == r] for r in self.relations]
        depth = max((len(q) for q in queues), default=0)
        chosen = [q[i] for i in range(depth) for q in queues if i < len(q)][:limit]
        return FactSet(tuple(chosen))

    @property
    def digest(self) -> str:
        """SHA-256 of the facts' content, for provenance."""
        text = json.dumps([asdict(f) for f in self.facts], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the facts as JSON lines, one fact a line (the format that `load_facts` reads)."""
        from kn_attrib.store import atomic_path

        with atomic_path(Path(path)) as temporary:
            lines = (json.dumps(asdict(f), ensure_ascii=False) + "\n" for f in self.facts)
            temporary.write_text("".join(lines), encoding="utf-8")
