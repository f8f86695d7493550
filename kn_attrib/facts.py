"""Facts: a triple and the paraphrases that express it, split into attribution and evaluation prompts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from kn_attrib.errors import FactError, unknown

SLOT = "[Y]"
SUBJECT_SLOT = "[X]"
WORLD = Path(__file__).parent / "data" / "world"

REQUIRED = ("id", "relation", "subject", "answer", "prompts")
OPTIONAL = ("held_out", "alternatives")


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
            if not isinstance(value, str) or not value.strip():
                raise FactError(f"fact {self.id!r}: field {name!r} is {value!r}; expected a non-empty text.")
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


def _texts(value: Any, fact: str, field: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise FactError(f"fact {fact!r}: field {field!r} is {value!r}; expected a list of texts.")
    texts = tuple(value)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise FactError(f"fact {fact!r}: field {field!r} holds {text!r}; expected non-empty texts.")
    return texts


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
        return FactSet(self.facts[key]) if isinstance(key, slice) else self.facts[key]

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __repr__(self) -> str:
        return f"FactSet({len(self)} facts of {len(self.relations)} relations)"

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


def facts_from_templates(
    relation: str,
    triples: Iterable[Sequence[str]],
    prompts: Sequence[str],
    held_out: Sequence[str] = (),
) -> FactSet:
    """Every triple in every template: ``[X]`` becomes the subject, ``[Y]`` stays the answer's slot.

    >>> facts_from_templates("capital", [("France", "Paris")], ["The capital of [X] is [Y]."])[0].prompts
    ('The capital of France is [Y].',)

    Parameters
    ----------
    relation : name of the relation.
    triples : ``(subject, answer, *other right answers)``.
    prompts, held_out : templates holding ``[X]`` and ``[Y]`` once each.

    Raises
    ------
    FactError : a template or a triple is malformed.
    """
    for name, given in (("triples", triples), ("prompts", prompts), ("held_out", held_out)):
        if isinstance(given, str | dict) or not isinstance(given, Iterable):
            raise FactError(f"relation {relation!r}: field {name!r} is {given!r}; expected a list.")
    for template in (*prompts, *held_out):
        if not isinstance(template, str):
            raise FactError(f"relation {relation!r}: template {template!r}; expected a text.")
        for slot in (SUBJECT_SLOT, SLOT):
            if template.count(slot) != 1:
                raise FactError(
                    f"relation {relation!r}: template {template!r} holds {slot} {template.count(slot)} times; "
                    "expected exactly once."
                )
    facts = []
    for triple in triples:
        is_list = isinstance(triple, Sequence) and not isinstance(triple, str)
        if not is_list or len(triple) < 2 or not all(isinstance(part, str) for part in triple):
            raise FactError(f"relation {relation!r}: triple {triple!r}; expected [subject, answer, *alternatives].")
        subject, answer, *alternatives = triple
        facts.append(
            Fact(
                id=f"{relation}:{subject}",
                relation=relation,
                subject=subject,
                answer=answer,
                prompts=tuple(t.replace(SUBJECT_SLOT, subject) for t in prompts),
                held_out=tuple(t.replace(SUBJECT_SLOT, subject) for t in held_out),
                alternatives=tuple(alternatives),
            )
        )
    return FactSet(tuple(facts))


def load_facts(source: str | Path | Iterable[Fact]) -> FactSet:
    """Read facts.

    Parameters
    ----------
    source : one of

        - ``"world"``, the facts that ship with the package;
        - a ``.jsonl`` file, one fact a line with the fields ``id, relation, subject, answer, prompts``
          and, if wanted, ``held_out`` and ``alternatives``;
        - a ``.json`` file of templates and triples
          ``{"relation", "prompts", "held_out", "triples": [[subject, answer, *alternatives], ...]}``;
        - a folder of such ``.json`` files;
        - any iterable of `Fact`.

    Raises
    ------
    FactError : the source does not exist or holds something malformed (the line and field are named).
    """
    if isinstance(source, FactSet):
        return source
    if not isinstance(source, str | Path):
        return FactSet(tuple(source))
    path = WORLD if str(source) == "world" else Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise FactError(f"folder {str(path)!r} holds no .json file of templates and triples.")
        return FactSet(tuple(fact for file in files for fact in _read_templates(file)))
    if not path.is_file():
        raise FactError(f"no facts at {str(source)!r}; expected 'world', a .jsonl file, a .json file, or a folder.")
    return _read_templates(path) if path.suffix == ".json" else _read_lines(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FactError(f"{path}: not UTF-8 text ({error}); save the file as UTF-8.") from error
    except OSError as error:
        raise FactError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_templates(path: Path) -> FactSet:
    try:
        data = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise FactError(f"{path}: not valid JSON ({error}).") from error
    missing = [k for k in ("relation", "prompts", "triples") if not isinstance(data, dict) or k not in data]
    if missing:
        raise FactError(f"{path}: field {missing[0]!r} is missing; expected relation, prompts, held_out, triples.")
    try:
        return facts_from_templates(data["relation"], data["triples"], data["prompts"], data.get("held_out", ()))
    except FactError as error:
        raise FactError(f"{path}: {error}") from error


def _read_lines(path: Path) -> FactSet:
    facts: list[Fact] = []
    lines: dict[str, int] = {}
    # Not splitlines(): it also splits at separators that are allowed inside a JSON text, such as U+2028.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fact = _fact_of(json.loads(line))
        except json.JSONDecodeError as error:
            raise FactError(
                f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}); "
                "expected one JSON object a line."
            ) from error
        except FactError as error:
            raise FactError(f"{path}, line {number}: {error}") from error
        if fact.id in lines:
            raise FactError(f"{path}, line {number}: fact id {fact.id!r} was used in line {lines[fact.id]} already.")
        lines[fact.id] = number
        facts.append(fact)
    if not facts:
        raise FactError(f"{path}: holds no facts; expected one JSON object a line.")
    return FactSet(tuple(facts))


def _fact_of(record: Any) -> Fact:
    if not isinstance(record, dict):
        raise FactError(f"expected a JSON object with the fields {', '.join(REQUIRED)}, found {record!r}.")
    for name in REQUIRED:
        if name not in record:
            raise FactError(f"field {name!r} is missing; expected {', '.join(REQUIRED)} (and {', '.join(OPTIONAL)}).")
    for name in record:
        if name not in REQUIRED + OPTIONAL:
            raise FactError(unknown("field", name, REQUIRED + OPTIONAL))
    return Fact(**record)
