"""Files of facts of every wrong kind, and what is said of each; odd ones that are right are read rightly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kn_attrib import FactSet, load_facts
from kn_attrib.errors import FactError

GOOD: dict[str, Any] = {
    "id": "capital:France", "relation": "capital", "subject": "France", "answer": "Paris",
    "prompts": ["the capital of France is [Y]."], "held_out": ["the city is [Y]."],
}  # fmt: skip
TEMPLATES: dict[str, Any] = {
    "relation": "capital", "prompts": ["the capital of [X] is [Y]."], "triples": [["France", "Paris"]]
}  # fmt: skip


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def templates(**changes: Any) -> bytes:
    return json.dumps({**TEMPLATES, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


ONE = line()
LINES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "holds no facts; expected one JSON object a line"),
    ("white space", b" \n\t\n \n", "holds no facts"),
    ("byte order mark alone", b"\xef\xbb\xbf", "holds no facts"),
    ("binary", bytes(range(256)), "not UTF-8 text .* save the file as UTF-8"),
    ("latin-1", line(answer="Orl\xe9ans").replace(b"\\u00e9", b"\xe9"), "not UTF-8 text"),
    ("utf-16", ONE.decode().encode("utf-16"), "not UTF-8 text .* save the file as UTF-8"),
    ("utf-16 without mark", ONE.decode().encode("utf-16-le"), "line 1: not valid JSON"),
    ("utf-32", ONE.decode().encode("utf-32"), "not UTF-8 text"),
    ("gzip", gzip.compress(ONE), "not UTF-8 text"),
    ("truncated gzip", gzip.compress(ONE)[:20], "not UTF-8 text"),
    ("truncated", ONE[:-5], r"line 1: not valid JSON \(.* at column \d+\); expected one JSON object a line"),
    ("csv", b"id,relation\na,b\n", "line 1: not valid JSON"),
    ("an array of facts", b"[" + ONE + b"]", r"expected a JSON object with the fields id, relation.*found \[\{"),
    ("two objects a line", ONE + ONE, "line 1: not valid JSON .Extra data"),
    ("a number", b"3", "expected a JSON object with the fields .* found 3"),
    ("null", b"null", "found None"),
    ("text", b'"fact"', "found 'fact'"),
    ("single quotes", b"{'id': 'a'}", "line 1: not valid JSON"),
    ("trailing comma", ONE[:-1] + b",}", "line 1: not valid JSON"),
    ("raw control character", ONE.replace(b"France is", b"France\x01is"), "Invalid control character"),
    ("raw NUL", ONE.replace(b"France is", b"France\x00is"), "Invalid control character"),
    ("deep", b'{"id": ' * 5000, "nested too deep to be read"),
    ("5,000 digits", b'{"id": ' + b"1" * 5000 + b"}", r"JSON that cannot be read \(Exceeds the limit"),
    ("field twice", ONE[:-1] + b', "id": "b"}', "field 'id' is given twice"),
    ("same id twice", ONE + b"\n\n" + line(answer="Rome"), "line 3: fact id 'capital:France' was used in line 1"),
    ("unknown field", line(anwser="Paris"), "unknown field 'anwser'. Did you mean 'answer'"),
    ("empty field name", line(**{"": 1}), "unknown field ''"),
    *((f"no {name}", without(name), f"field '{name}' is missing; expected id, rel") for name in list(GOOD)[:5]),
    *((f"{name} empty", line(**{name: ""}), f"'{name}' is ''; expected a non-empty text") for name in list(GOOD)[:4]),
    *((f"{name} blank", line(**{name: " \t"}), f"'{name}' is .*; expected a non-empty") for name in list(GOOD)[:4]),
    ("nothing that is seen", line(answer="\u200b\u2060"), "'answer' is .*; expected a non-empty text"),
    ("id number", line(id=3), "field 'id' is 3; expected a non-empty text"),
    ("id null", line(id=None), "field 'id' is None; expected a non-empty text"),
    ("id list", line(id=["a"]), r"field 'id' is \['a'\]; expected a non-empty text"),
    ("answer true", line(answer=True), "field 'answer' is True; expected a non-empty text"),
    ("answer nan", line(answer=float("nan")), "field 'answer' is nan; expected a non-empty text"),
    ("subject object", line(subject={"a": 1}), "field 'subject' is .*; expected a non-empty text"),
    ("prompts text", line(prompts="[Y]"), r"'prompts' is '\[Y\]'; expected a list of texts"),
    ("prompts object", line(prompts={"a [Y]": 1}), "'prompts' is .*; expected a list of texts"),
    ("prompts null", line(prompts=None), "'prompts' is None; expected a list of texts"),
    ("prompts number", line(prompts=1e400), "'prompts' is inf; expected a list of texts"),
    ("no prompts", line(prompts=[]), r"'prompts' is an empty list; give at least one text with \[Y\]"),
    ("prompt null", line(prompts=[None]), "'prompts' holds None; expected non-empty texts"),
    ("prompt list", line(prompts=[["a [Y]"]]), "'prompts' holds .*; expected non-empty texts"),
    ("prompt empty", line(prompts=[""]), "'prompts' holds ''; expected non-empty texts"),
    ("prompt blank", line(prompts=["\n"]), "'prompts' holds .*; expected non-empty texts"),
    ("no slot", line(prompts=["Paris"]), r"'Paris' holds the slot \[Y\] 0 times; expected exactly once"),
    ("two slots", line(prompts=["[Y] [Y]"]), r"holds the slot \[Y\] 2 times; expected exactly once"),
    ("small slot", line(prompts=["it is [y]"]), r"holds the slot \[Y\] 0 times"),
    ("held out without slot", line(held_out=["x"]), r"'held_out': 'x' holds the slot \[Y\] 0 times"),
    ("held out text", line(held_out="[Y]"), r"'held_out' is '\[Y\]'; expected a list of texts"),
    ("in both lists", line(held_out=GOOD["prompts"]), "is in both 'prompts' and 'held_out'"),
    ("alternatives text", line(alternatives="Lutetia"), "'alternatives' is 'Lutetia'; expected a list of texts"),
    ("alternative number", line(alternatives=[3]), "'alternatives' holds 3; expected non-empty texts"),
    ("NUL", line(answer="Par\0is"), "'answer' is 'Par.x00is'; expected text without NUL"),
    ("escape in id", line(id="\x1b[2J"), "'id' is .*without control characters but tabs.*it holds '.x1b'"),
    ("bell in prompt", line(prompts=["\x07 [Y]"]), "'prompts' is .*; expected text without .*it holds '.x07'"),
    ("C1 control", line(subject="Fr\x9bance"), "'subject' is .*; expected text without .*it holds '.x9b'"),
    ("lone surrogate", line(answer="\ud800"), "'answer' is .*; expected text without NUL and lone surrogates"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in LINES], ids=[case[0] for case in LINES])
def test_a_bad_file_of_lines(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(content)
    with pytest.raises(FactError, match=rf"(?s)facts\.jsonl.*{said}"):
        load_facts(path)


JSON: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not valid JSON"),
    ("utf-16", templates().decode().encode("utf-16"), "not UTF-8 text"),
    ("lines", ONE + b"\n" + ONE, "not valid JSON .Extra data"),
    ("one fact", ONE, "field 'triples' is missing; expected relation, prompts"),
    ("a list", b"[]", "holds a list; expected one object of one relation, with relation, .* a .jsonl file"),
    ("deep", b"[" * 20_000, "nested too deep"),
    ("field twice", templates()[:-1] + b', "relation": "b"}', "field 'relation' is given twice"),
    ("unknown field", templates(heldout=[]), "unknown field 'heldout'. Did you mean 'held_out'"),
    ("relation number", templates(relation=3), "field 'relation' is 3; expected a non-empty text"),
    ("relation empty", templates(relation=""), "field 'relation' is ''; expected a non-empty text"),
    ("triples object", templates(triples={"France": "Paris"}), "field 'triples' is .*; expected a list"),
    ("triples text", templates(triples="France"), "field 'triples' is 'France'; expected a list"),
    ("triples null", templates(triples=None), "field 'triples' is None; expected a list"),
    ("triples empty", templates(triples=[]), "field 'triples' is empty"),
    ("triple text", templates(triples=["ab"]), "triple 'ab'; expected .subject, answer"),
    ("triple of one", templates(triples=[["France"]]), "triple .'France'.; expected .subject, answer"),
    ("triple of numbers", templates(triples=[[1, 2]]), r"triple \[1, 2\]; expected"),
    ("triple object", templates(triples=[{"a": "b"}]), "triple .*; expected .subject, answer"),
    ("triple twice", templates(triples=[["a", "b"]] * 2), "fact id 'capital:a' occurs more than once"),
    ("subject with a slot", templates(triples=[["[Y]", "Paris"]]), r"holds the slot \[Y\] 2 times"),
    ("prompts null", templates(prompts=None), "field 'prompts' is None; expected a list"),
    ("prompts empty", templates(prompts=[]), "'prompts' is an empty list"),
    ("template number", templates(prompts=[3]), "template 3; expected a text"),
    ("template without subject", templates(prompts=["[Y]"]), r"'\[Y\]' holds \[X\] 0 times; expected exactly once"),
    ("held_out null", templates(held_out=None), "field 'held_out' is None; expected a list"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in JSON], ids=[case[0] for case in JSON])
@pytest.mark.parametrize("name", ["facts.json", "facts.JSON"])
def test_a_bad_file_of_templates(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FactError, match=rf"(?s){name}.*{said}"):
        load_facts(path)


SOURCES: list[tuple[Any, str]] = [
    ("nowhere.jsonl", "no facts at 'nowhere.jsonl'; expected 'world', a .jsonl file"),
    ("", r"folder '\.' holds no \.json file|no facts at ''"),
    ("wrld", "no facts at 'wrld'; expected 'world'"),
    ("a\0b", "no facts at .*; expected 'world'"),
    ("a" * 5000, "facts at aaa.* cannot be read .File name too long"),
    ("/dev/null", "no facts at '/dev/null'"),
    (3, "3 are no facts; expected 'world', a file, a folder, or a list of facts"),
    (None, "None are no facts"),
    (b"world", "b'world' are no facts"),
    ([3], "3 is not a fact; expected kn_attrib.Fact"),
    ([GOOD], "is not a fact; expected kn_attrib.Fact"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), SOURCES, ids=[repr(source)[:20] for source, _ in SOURCES])
def test_a_source_of_no_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FactError, match=said):
        load_facts(source)


def test_a_folder_without_facts_or_with_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(FactError, match=r"folder '.*' holds no \.json file of templates and triples"):
        load_facts(tmp_path)
    (tmp_path / "a.json").write_bytes(templates())
    (tmp_path / "b.json").write_bytes(b"{}")
    with pytest.raises(FactError, match=r"b\.json: field 'relation' is missing"):
        load_facts(tmp_path)
    (tmp_path / "b.json").write_bytes(templates())
    with pytest.raises(FactError, match="fact id 'capital:France' occurs more than once"):
        load_facts(tmp_path)
    (tmp_path / "b.json").unlink()
    (tmp_path / "b.json").mkdir()
    with pytest.raises(FactError, match=r"b\.json: cannot be read \(Is a directory\)"):
        load_facts(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(ONE)

    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(FactError, match=r"facts\.jsonl: cannot be read \(Permission denied\)"):
        load_facts(path)


ODD: list[tuple[str, bytes]] = [
    ("byte order mark", b"\xef\xbb\xbf" + ONE),
    ("carriage returns", b"\r\n" + ONE + b"\r\n\r\n"),
    ("no line end", ONE),
    ("blank lines", b"\n \n" + ONE + b"\n\n"),
    ("escaped", ONE.replace(b"Paris", b"P\\u0061ris")),
    ("other order", json.dumps(dict(reversed(GOOD.items()))).encode()),
]


@pytest.mark.parametrize("content", [case[1] for case in ODD], ids=[case[0] for case in ODD])
def test_odd_files_are_read_rightly(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(content)
    (fact,) = load_facts(path)
    assert (fact.id, fact.answer, fact.prompts) == ("capital:France", "Paris", ("the capital of France is [Y].",))
    assert fact.held_out == ("the city is [Y].",)


def test_odd_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    odd = {"subject": "é\u2028/..\\:*😀", "answer": "a\nb\tc", "prompts": ["x" * 100_000 + " [Y]"]}
    path = tmp_path / "facts.jsonl"
    path.write_bytes(line(**odd, id="../../etc/passwd"))
    (fact,) = load_facts(path)
    assert (fact.subject, fact.answer, list(fact.prompts)) == (odd["subject"], odd["answer"], odd["prompts"])
    FactSet((fact,)).save(tmp_path / "again.jsonl")
    assert load_facts(tmp_path / "again.jsonl")[0] == fact
