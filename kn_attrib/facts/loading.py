"""Reading facts from files and templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kn_attrib.errors import FactError, unknown
from kn_attrib.facts.facts import SLOT, SUBJECT_SLOT, Fact, FactSet
from kn_attrib.store import shown

WORLD = Path(__file__).parents[1] / "data" / "world"

REQUIRED = ("id", "relation", "subject", "answer", "prompts")
OPTIONAL = ("held_out", "alternatives")
OF_TEMPLATES = ("relation", "prompts", "held_out", "triples")
NOTES = ("description", "source", "licence")
"""What a file of templates may say of itself beside."""


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
          ``{"relation", "prompts", "held_out", "triples": [[subject, answer, *alternatives], ...]}`` (and, for
          readers, ``"description"``, ``"source"``, ``"licence"``);
        - a folder of such ``.json`` files;
        - any iterable of `Fact`.

    Raises
    ------
    FactError : the source does not exist or holds something malformed (the line and field are named).
    """
    if isinstance(source, FactSet):
        return source
    if not isinstance(source, str | Path):
        if isinstance(source, bytes) or not isinstance(source, Iterable):
            raise FactError(f"{source!r} are no facts; expected 'world', a file, a folder, or a list of facts.")
        return FactSet(tuple(source))
    path = WORLD if str(source) == "world" else Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        files = sorted(path.glob("*.json")) if is_folder else []
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise FactError(f"facts at {shown(path)} cannot be read ({error.strerror}).") from error
    if is_folder:
        if not files:
            raise FactError(f"folder {str(path)!r} holds no .json file of templates and triples.")
        return FactSet(tuple(fact for file in files for fact in _read_templates(file)))
    if not is_file:
        raise FactError(f"no facts at {str(source)!r}; expected 'world', a .jsonl file, a .json file, or a folder.")
    return _read_templates(path) if path.suffix.lower() == ".json" else _read_lines(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FactError(f"{path}: not UTF-8 text ({error}); save the file as UTF-8.") from error
    except OSError as error:
        raise FactError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_templates(path: Path) -> FactSet:
    try:
        data = _parsed(_read(path))
        if not isinstance(data, dict):
            held = "a list" if isinstance(data, list) else "no object"
            raise FactError(
                f"it holds {held}; expected one object of one relation, with {', '.join(OF_TEMPLATES)}. Several "
                "relations: a folder with one such file of each; single facts: a .jsonl file, one fact a line."
            )
        fields = data
        missing = [name for name in ("relation", "prompts", "triples") if name not in fields]
        if missing:
            raise FactError(f"field {missing[0]!r} is missing; expected {', '.join(OF_TEMPLATES)}.")
        for name in fields:
            if name not in OF_TEMPLATES + NOTES:
                raise FactError(unknown("field", name, OF_TEMPLATES + NOTES))
        found = facts_from_templates(data["relation"], data["triples"], data["prompts"], data.get("held_out", ()))
    except json.JSONDecodeError as error:
        raise FactError(f"{path}: not valid JSON ({error}).") from error
    except FactError as error:
        raise FactError(f"{path}: {error}") from error
    if not len(found):
        raise FactError(f"{path}: field 'triples' is empty; expected [subject, answer, *alternatives] of each fact.")
    return found


def _parsed(text: str) -> Any:
    """What a JSON text holds.

    Raises
    ------
    FactError : it is nested too deep, holds an integer of thousands of digits, or an object names a field twice.
    json.JSONDecodeError : it is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_fields)
    except (json.JSONDecodeError, FactError):
        raise
    except RecursionError as error:
        raise FactError("JSON that is nested too deep to be read.") from error
    except ValueError as error:
        raise FactError(f"JSON that cannot be read ({error}).") from error


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise FactError(f"field {name!r} is given twice.")
        fields[name] = value
    return fields


def _read_lines(path: Path) -> FactSet:
    facts: list[Fact] = []
    lines: dict[str, int] = {}
    # Not splitlines(): it also splits at separators that are allowed inside a JSON text, such as U+2028.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fact = _fact_of(_parsed(line))
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
