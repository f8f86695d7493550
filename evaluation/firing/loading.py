"""Reading texts: plain ones, JSON lines, and the files of BingRel."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.firing.texts import Bag, Texts
from kn_attrib.facts.facts import SLOT
from kn_attrib.store import parsed_json, reason_of, shown

Source = str | Path | Sequence[str]
Gathered = tuple[str, str, Bag]
"""Subject, answer and their texts."""
PAIRS = "query_pairs.json"
BAGS = "final_distant_allbags_{relation}_new.json"
FIELDS = ("head", "tail", "head_tail_texts", "head_only_texts")
EXPECTED = (
    "expected UTF-8 text, a text a line; .jsonl, each line with a field 'text' or with the fields "
    f"{', '.join(map(repr, FIELDS))}; or the folder of BingRel with {PAIRS}"
)


def load_texts(source: Source) -> Texts:
    """Read texts; equal ones are kept once, and those that hold ``[Y]`` are left out.

    Parameters
    ----------
    source : one of

        - a sequence of texts;
        - a file of plain text, a text a line;
        - a ``.jsonl`` file whose lines each have a field ``text``, or are what was gathered for one fact: ``head,
          tail, head_tail_texts, head_only_texts``; further fields are not read;
        - the folder of BingRel as published: ``query_pairs.json`` and, in it or in ``final/``,
          ``final_distant_allbags_P36_new.json`` and so on.

        Files may be compressed (``.gz``).

    Raises
    ------
    ConfigError : it cannot be read or holds something else (the line is named), or there is no text.

    Reference
    ---------
    Dai et al. 2022, arXiv 2104.08696 (section 4.4: BingRel).
    """
    if not isinstance(source, str | Path):
        found = _texts(source)
        said = "texts"
    else:
        path, said = Path(source), f"texts {shown(Path(source))}"
        try:
            found = _texts(_bingrel(path) if path.is_dir() else _records(path))
        except (OSError, EOFError, ValueError) as error:  # EOFError: cut off; ValueError: not UTF-8, or no such name
            raise ConfigError(f"cannot read the {said}: {reason_of(error)}; {EXPECTED}.") from error
    if not found.texts:
        raise ConfigError(f"the {said} are empty; {EXPECTED}.")
    return found


def _texts(records: Iterable[str | Gathered]) -> Texts:
    texts: dict[str, None] = {}
    bags: dict[tuple[str, str], Bag] = {}
    for record in records:
        if isinstance(record, str):
            found = _usable([record])
        else:
            subject, answer, bag = record
            own, before = Bag(*map(_usable, bag)), bags.get((subject, answer), Bag((), ()))
            bags[subject, answer] = Bag(*(tuple(dict.fromkeys(a + b)) for a, b in zip(before, own, strict=True)))
            found = own.both + own.subject
        texts.update(dict.fromkeys(found))
    return Texts(tuple(texts), bags)


def _usable(texts: Iterable[str]) -> tuple[str, ...]:
    stripped = (text.strip() for text in texts)
    return tuple(text for text in stripped if text and SLOT not in text)


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8-sig") as file:
            yield from file
    else:
        with path.open(encoding="utf-8-sig") as file:
            yield from file


def _records(path: Path) -> Iterator[str | Gathered]:
    as_json = path.name.removesuffix(".gz").endswith(".jsonl")
    for number, line in enumerate(_lines(path), start=1):
        if as_json and line.strip():
            try:
                yield _record(parsed_json(line))
            except ValueError as error:
                raise ConfigError(f"{shown(path)}, line {number}: {error}; {EXPECTED}.") from error
        elif not as_json:
            yield line


def _record(given: Any) -> str | Gathered:
    if not isinstance(given, dict):
        raise ValueError(f"holds {type(given).__name__}, no JSON object")
    if "text" in given:
        return _text(given, "text")
    missing = [name for name in FIELDS if name not in given]
    if missing:
        raise ValueError(f"has no field 'text', and no field {missing[0]!r}")
    bag = Bag(_list(given, "head_tail_texts"), _list(given, "head_only_texts"))
    return _text(given, "head"), _text(given, "tail"), bag


def _text(given: dict[str, Any], name: str) -> str:
    value = given[name]
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} is {value!r:.80}, no text")
    return value


def _list(given: Any, name: str) -> tuple[str, ...]:
    values = given[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"field {name!r} is {values!r:.80}, no list of texts")
    return tuple(values)


def _bingrel(folder: Path) -> Iterator[Gathered]:
    """The files as published: for each relation a list of pairs, and beside it a list of their texts."""
    pairs = parsed_json((folder / PAIRS).read_text(encoding="utf-8"))
    if not isinstance(pairs, dict):
        raise ValueError(f"{PAIRS} holds {type(pairs).__name__}, no relations")
    files = {relation: _bag_file(folder, relation) for relation in pairs}
    if not any(files.values()):
        raise ValueError(f"{PAIRS} has no {BAGS.format(relation=next(iter(pairs), 'P36'))} beside it or in final/")
    for relation, file in files.items():
        if file is None:
            continue
        bags = parsed_json(file.read_text(encoding="utf-8"))
        if len(bags) != len(pairs[relation]):
            raise ValueError(f"{file.name} has {len(bags)} entries; expected {len(pairs[relation])}, as {PAIRS}")
        for (subject, answer), bag in zip(pairs[relation], bags, strict=True):
            yield subject, answer, Bag(_list(bag, "th_bags"), _list(bag, "h_bags"))


def _bag_file(folder: Path, relation: str) -> Path | None:
    name = BAGS.format(relation=re.sub(r"\W", "", relation))
    return next((each for each in (folder / name, folder / "final" / name) if each.is_file()), None)
