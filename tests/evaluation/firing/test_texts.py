"""Texts: where names stand in them, how they are found, and how they are read from files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kn_attrib import Fact
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation import Texts, load_texts
from kn_attrib.evaluation.firing.texts import Bag, place_of

FACT = Fact("capital:Italy", "capital", "Italy", "Rome", ("The capital of Italy is [Y].",))
TEXTS = ("Rome is in Italy.", "Italy has Romeo and Juliet.", "Romeo came to Rome.", "Nothing at all.", "Italy Rome")
BAG = {"head": "Italy", "tail": "Rome", "head_tail_texts": ["Rome, Italy"], "head_only_texts": ["Italy is in Rome"]}


@pytest.mark.parametrize(
    ("name", "text", "outside", "place"),
    [
        ("Rome", "Rome.", "", (0, 4)),
        ("Rome", "Romeo and Rome", "", (10, 14)),
        ("Rome", "Jérome and Rome", "", (11, 15)),  # letters of any script
        ("Rome", "Rome2 (Rome)", "", (0, 4)),  # as in the authors' code a digit is no letter
        ("Rome", "rome", "", None),
        ("Rome", "The Rome Statute of Rome", "Rome Statute", (20, 24)),
        ("C++", "in C++ and C", "", (3, 6)),
        ("St. Louis", "St Louis, St. Louis", "", (10, 19)),
    ],
)
def test_names_stand_where_no_letter_is_beside_them(
    name: str, text: str, outside: str, place: tuple[int, int] | None
) -> None:
    assert place_of(name, text, outside) == place


def test_texts_are_found_by_names() -> None:
    texts = Texts(TEXTS)
    assert texts.holding("Rome") == [TEXTS[0], TEXTS[2], TEXTS[4]]
    assert texts.holding("Italy Rome") == [TEXTS[4]]
    assert texts.holding("Paris") == []
    assert texts.bag(FACT) == Bag((TEXTS[0], TEXTS[4]), (TEXTS[1],))


def test_texts_that_were_gathered_for_a_fact_are_its_own() -> None:
    bag = Bag(("a",), ("b",))
    assert Texts(TEXTS, {("Italy", "Rome"): bag}).bag(FACT) is bag


def test_the_digest_is_of_the_texts_and_of_whom_they_are_for() -> None:
    texts = Texts(TEXTS)
    assert texts.digest == Texts(TEXTS).digest
    others = Texts(TEXTS[:-1]), Texts(TEXTS, {("Italy", "Rome"): Bag((), TEXTS[:1])})
    assert len({texts.digest, *(other.digest for other in others)}) == 3


def written(path: Path, content: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
def test_files_of_texts(tmp_path: Path, end: str) -> None:
    plain = load_texts(written(tmp_path / f"a.txt{end}", "one\n\n two \none\nwith [Y]\n"))
    assert plain == Texts(("one", "two"))
    lines = "\n".join(json.dumps(each) for each in ({"text": "one", "id": 3}, BAG, {**BAG, "head_only_texts": []}))
    found = load_texts(written(tmp_path / f"a.jsonl{end}", lines + "\n"))
    assert found.texts == ("one", "Rome, Italy", "Italy is in Rome")
    assert found.bags == {("Italy", "Rome"): Bag(("Rome, Italy",), ("Italy is in Rome",))}
    assert load_texts(["one", "two"]) == plain


@pytest.mark.parametrize("inner", ["", "final"])
def test_bingrel_as_published(tmp_path: Path, inner: str) -> None:
    pairs = {"P36": [["Italy", "Rome"], ["France", "Paris"]], "P19": [["Dante", "Florence"]]}
    written(tmp_path / "query_pairs.json", json.dumps(pairs))
    (tmp_path / inner).mkdir(exist_ok=True)
    bags = [{"th_bags": ["Rome, Italy"], "h_bags": ["Italy"]}, {"th_bags": [], "h_bags": ["France"]}]
    written(tmp_path / inner / "final_distant_allbags_P36_new.json", json.dumps(bags))
    found = load_texts(tmp_path)
    assert found.bags == {
        ("Italy", "Rome"): Bag(("Rome, Italy",), ("Italy",)),
        ("France", "Paris"): Bag((), ("France",)),
    }
    assert found.texts == ("Rome, Italy", "Italy", "France")
    written(tmp_path / inner / "final_distant_allbags_P36_new.json", json.dumps(bags[:1]))
    with pytest.raises(ConfigError, match=r"has 1 entries; expected 2, as query_pairs\.json"):
        load_texts(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[1]", "line 2: holds list, no JSON object"),
        ({"sentence": "a"}, "line 2: has no field 'text', and no field 'head'"),
        ({"text": 3}, "line 2: field 'text' is 3, no text"),
        ({**BAG, "tail": None}, "line 2: field 'tail' is None, no text"),
        ({**BAG, "head_tail_texts": "Rome"}, "line 2: field 'head_tail_texts' is 'Rome', no list of texts"),
        ({**BAG, "head_only_texts": [1]}, r"line 2: field 'head_only_texts' is \[1\], no list of texts"),
        ("[" * 100_000, "line 2: nested too deep"),
    ],
)
def test_a_line_that_is_something_else_is_named(tmp_path: Path, line: Any, message: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    with pytest.raises(ConfigError, match=message):
        load_texts(written(tmp_path / "a.jsonl", '{"text": "one"}\n' + text))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the texts .*none\.txt.*expected UTF-8 text"):
        load_texts(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="are empty; expected"):
        load_texts(written(tmp_path / "a.txt", "\n \n"))
    with pytest.raises(ConfigError, match="the texts are empty"):
        load_texts([])
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"b\.txt.*expected UTF-8"):
        load_texts(tmp_path / "b.txt")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"one two three")[:-6])
    with pytest.raises(ConfigError, match=r"c\.txt\.gz"):
        load_texts(tmp_path / "c.txt.gz")
    with pytest.raises(ConfigError, match=r"query_pairs\.json"):
        load_texts(tmp_path)
    written(tmp_path / "query_pairs.json", '{"P36": []}')
    with pytest.raises(ConfigError, match=r"final_distant_allbags_P36_new\.json"):
        load_texts(tmp_path)
