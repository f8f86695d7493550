"""Facts: what is accepted, what is refused and with which words, and the facts that ship."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kn_attrib import Fact, FactSet, facts_from_templates, load_facts
from kn_attrib.errors import FactError
from kn_attrib.facts.loading import WORLD

GOOD: dict[str, Any] = {
    "id": "capital:France",
    "relation": "capital",
    "subject": "France",
    "answer": "Paris",
    "prompts": ["France has the capital [Y]."],
}


def fact(**changes: Any) -> Fact:
    return Fact(**(GOOD | changes))


@pytest.mark.parametrize("field", ["id", "relation", "subject", "answer"])
@pytest.mark.parametrize("value", ["", "  ", 7, None])
def test_empty_and_wrongly_typed_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(FactError, match=f"field '{field}' is {value!r}; expected a non-empty text"):
        fact(**{field: value})


def test_no_slot_and_two_slots_are_refused() -> None:
    with pytest.raises(FactError, match=r"'prompts': 'Paris' holds the slot \[Y\] 0 times; expected exactly once"):
        fact(prompts=["Paris"])
    with pytest.raises(FactError, match=r"capital:France.*'held_out': '\[Y\] or \[Y\]' holds the slot \[Y\] 2 times"):
        fact(held_out=["[Y] or [Y]"])


def test_an_empty_list_of_prompts_is_refused() -> None:
    with pytest.raises(FactError, match=r"'prompts' is an empty list; give at least one text with \[Y\]"):
        fact(prompts=[])


def test_a_text_in_both_lists_is_refused() -> None:
    with pytest.raises(FactError, match="'A is in \\[Y\\]' is in both 'prompts' and 'held_out'"):
        fact(prompts=["A is in [Y]"], held_out=["A is in [Y]"])


@pytest.mark.parametrize("field", ["prompts", "held_out", "alternatives"])
def test_lists_must_be_lists_of_texts(field: str) -> None:
    with pytest.raises(FactError, match=f"'{field}' is 'one \\[Y\\]'; expected a list of texts"):
        fact(**{field: "one [Y]"})
    with pytest.raises(FactError, match=f"'{field}' holds 3; expected non-empty texts"):
        fact(**{field: [3]})


def test_a_fact_keeps_tuples_and_is_hashable() -> None:
    assert fact().prompts == ("France has the capital [Y].",)
    assert len({fact(), fact()}) == 1


def test_ambiguity_and_leaks_are_flagged() -> None:
    assert not fact().is_ambiguous
    assert not fact().leaks_answer
    assert fact(alternatives=["Lutetia"]).is_ambiguous
    assert fact(subject="Republic of PARIS").leaks_answer


def test_ids_are_unique() -> None:
    with pytest.raises(FactError, match="'capital:France' occurs more than once"):
        FactSet((fact(), fact()))


def test_only_facts_make_a_fact_set() -> None:
    with pytest.raises(FactError, match=r"'France' is not a fact; expected kn_attrib\.Fact"):
        load_facts(["France"])  # type: ignore[list-item]


def two_relations() -> FactSet:
    facts = [fact(id=f"a{i}", relation="a") for i in range(3)] + [fact(id=f"b{i}", relation="b") for i in range(2)]
    return FactSet(tuple(facts))


def test_a_fact_set_is_a_sequence_and_a_lookup() -> None:
    facts = two_relations()
    assert len(facts) == 5
    assert facts[1] is facts["a1"]
    assert [f.id for f in facts[3:]] == ["b0", "b1"]
    assert facts.relations == ("a", "b")
    assert repr(facts) == "FactSet(5 facts of 2 relations)"
    with pytest.raises(FactError, match=r"unknown fact 'a9'\. Did you mean 'a2' or 'a1' or 'a0'"):
        facts["a9"]


def test_of_picks_relations() -> None:
    assert [f.id for f in two_relations().of("b")] == ["b0", "b1"]


def test_an_unknown_relation_shows_close_ones() -> None:
    facts = FactSet((fact(),))
    with pytest.raises(FactError, match=r"unknown relation 'captial'\. Did you mean 'capital'\? Known: capital"):
        facts.of("captial")


def test_spread_takes_relations_in_turn() -> None:
    facts = two_relations()
    assert [f.id for f in facts.spread(3)] == ["a0", "b0", "a1"]
    assert [f.id for f in facts.spread(99)] == ["a0", "b0", "a1", "b1", "a2"]
    with pytest.raises(FactError, match="limit is 0; expected at least 1"):
        facts.spread(0)


def test_digest_follows_the_content() -> None:
    one = FactSet((fact(),))
    assert one.digest == FactSet((fact(),)).digest
    assert one.digest != FactSet((fact(held_out=["the capital [Y]"]),)).digest
    assert two_relations().digest != FactSet(tuple(reversed(two_relations()))).digest


def test_saved_facts_load_as_they_were(tmp_path: Path) -> None:
    # U+2028 is a line separator for Python's splitlines, but not for JSON lines.
    facts = FactSet((fact(), fact(id="é", held_out=["Zürich\u2028is [Y]"], alternatives=["Ville"])))
    facts.save(tmp_path / "facts.jsonl")
    assert load_facts(tmp_path / "facts.jsonl") == facts
    assert "Zürich" in (tmp_path / "facts.jsonl").read_text(encoding="utf-8")


def test_templates_times_triples() -> None:
    facts = facts_from_templates("capital", [("France", "Paris"), ("Bolivia", "Sucre", "La Paz")],
                                 ["[X] has [Y]."], ["in [X] lies [Y]."])  # fmt: skip
    assert facts[0] == Fact(
        "capital:France", "capital", "France", "Paris", ("France has [Y].",), ("in France lies [Y].",)
    )
    assert facts["capital:Bolivia"].alternatives == ("La Paz",)


@pytest.mark.parametrize(
    ("triples", "prompts", "message"),
    [
        ([("France", "Paris")], ["the capital is [Y]."], r"template 'the capital is \[Y\]\.' holds \[X\] 0 times"),
        ([("France", "Paris")], ["[X] [X] [Y]"], r".*holds \[X\] 2 times; expected exactly once"),
        ([("France", "Paris")], ["[X] is"], r".*holds \[Y\] 0 times"),
        ([("France", "Paris")], [5], "template 5; expected a text"),
        ([("France", "Paris")], "[X] is in [Y]", "field 'prompts' is .* expected a list"),
        ([("France",)], ["[X] [Y]"], r"triple \('France',\); expected \[subject, answer, \*alternatives\]"),
        (["France"], ["[X] [Y]"], "triple 'France'; expected"),
        ([7], ["[X] [Y]"], "triple 7; expected"),
        ({"France": "Paris"}, ["[X] [Y]"], "field 'triples' is .* expected a list"),
    ],
)
def test_malformed_templates_and_triples_are_refused(triples: Any, prompts: Any, message: str) -> None:
    with pytest.raises(FactError, match=f"relation 'capital': {message}"):
        facts_from_templates("capital", triples, prompts)


def lines(tmp_path: Path, *records: object) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), encoding="utf-8")
    return path


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = lines(tmp_path, "", GOOD, "  ", GOOD | {"id": "other"}, "")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [f.id for f in load_facts(path)] == ["capital:France", "other"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({k: v for k, v in GOOD.items() if k != "answer"}, "field 'answer' is missing; expected id, relation, subject"),
        (GOOD | {"promts": []}, "unknown field 'promts'. Did you mean 'prompts'"),
        (GOOD | {"id": "x", "subject": ""}, "fact 'x': field 'subject' is ''; expected a non-empty text"),
        (GOOD | {"id": "x", "prompts": ["Paris"]}, r"fact 'x': field 'prompts': 'Paris' holds the slot \[Y\] 0 times"),
        ("{'id': 1}", r"not valid JSON \(Expecting property name .* at column 2\); expected one JSON object a line"),
        ("[1]", r"expected a JSON object with the fields id, .*, found \[1\]"),
        ("[" * 100_000, "JSON that is nested too deep to be read"),
        ('{"id": ' + "1" * 5000 + "}", r"JSON that cannot be read \(Exceeds the limit \(4300 digits\)"),
        ('{"id": "x", "answer": "a", "answer": "b"}', "field 'answer' is given twice"),
        (
            GOOD | {"id": "x", "prompts": {"In [Y]": 1}},
            "fact 'x': field 'prompts' is .*; expected a list of texts",
        ),
        (GOOD | {"id": "x", "answer": "Pa\0ris"}, "fact 'x': field 'answer' is .*; expected text without NUL and lone"),
        (GOOD | {"id": "x", "prompts": ["\ud800 [Y]"]}, "fact 'x': field 'prompts' is .*; expected text without NUL"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, bad: object, message: str) -> None:
    path = lines(tmp_path, GOOD, "", bad)
    with pytest.raises(FactError, match=rf"facts\.jsonl, line 3: {message}"):
        load_facts(path)


def test_a_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    path = lines(tmp_path, "", GOOD, GOOD)
    with pytest.raises(FactError, match="line 3: fact id 'capital:France' was used in line 2 already"):
        load_facts(path)


def test_files_that_hold_no_facts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes("Zürich".encode("latin-1"))
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(FactError, match=r"latin\.jsonl: not UTF-8 text .* save the file as UTF-8"):
        load_facts(tmp_path / "latin.jsonl")
    with pytest.raises(FactError, match=r"empty\.jsonl: holds no facts; expected one JSON object a line"):
        load_facts(tmp_path / "empty.jsonl")


def test_a_missing_source_says_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(FactError, match=r"no facts at '.*nowhere'; expected 'world', a \.jsonl file, a \.json file"):
        load_facts(tmp_path / "nowhere")


TEMPLATES = {"relation": "capital", "prompts": ["[X] has [Y]."], "triples": [["France", "Paris"], ["Italy", "Rome"]]}


def test_a_json_file_and_a_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(TEMPLATES))
    (tmp_path / "two.json").write_text(json.dumps(TEMPLATES | {"relation": "seat", "held_out": ["in [X] is [Y]"]}))
    assert [f.id for f in load_facts(tmp_path / "one.json")] == ["capital:France", "capital:Italy"]
    assert load_facts(tmp_path).relations == ("capital", "seat")
    assert load_facts(tmp_path)["seat:Italy"].held_out == ("in Italy is [Y]",)


def test_a_bad_json_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text("{")
    with pytest.raises(FactError, match=r"bad\.json: not valid JSON \(.*line 1 column 2"):
        load_facts(path)
    path.write_text(json.dumps({"relation": "capital", "prompts": []}))
    with pytest.raises(FactError, match=r"bad\.json: field 'triples' is missing; expected relation, prompts"):
        load_facts(path)
    path.write_text(json.dumps(TEMPLATES | {"triples": []}))
    with pytest.raises(FactError, match=r"bad\.json: field 'triples' is empty; expected \[subject, answer"):
        load_facts(path)
    path.write_text(json.dumps(TEMPLATES | {"heldout": []}))
    with pytest.raises(FactError, match=r"bad\.json: unknown field 'heldout'. Did you mean 'held_out'"):
        load_facts(path)
    path.write_text("[" * 100_000)
    with pytest.raises(FactError, match=r"bad\.json: JSON that is nested too deep to be read"):
        load_facts(path)
    path.write_text(json.dumps(TEMPLATES | {"triples": [["France"]]}))
    with pytest.raises(FactError, match=r"bad\.json: relation 'capital': triple \['France'\]"):
        load_facts(tmp_path)


def test_a_folder_without_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FactError, match=r"folder '.*' holds no \.json file of templates and triples"):
        load_facts(tmp_path)


def test_facts_pass_through() -> None:
    facts = FactSet((fact(),))
    assert load_facts(facts) is facts
    assert load_facts([fact()]) == facts


# -- the facts that ship ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> FactSet:
    return load_facts("world")


@pytest.fixture(scope="module")
def world_files() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(WORLD.glob("*.json"))]


def test_world_is_large_enough(world: FactSet) -> None:
    assert len(world.relations) >= 12
    assert len(world) >= 1200


def test_every_relation_has_enough_templates_that_end_with_the_answer(world_files: list[dict[str, Any]]) -> None:
    for each in world_files:
        templates = [*each["prompts"], *each["held_out"]]
        assert len(templates) >= 10, each["relation"]
        assert sum(t.rstrip(" .").endswith("[Y]") for t in templates) >= 6, each["relation"]
        assert each["held_out"], each["relation"]


def test_country_relations_share_subjects(world: FactSet) -> None:
    names = ("capital", "continent", "language", "currency")
    assert len(set.intersection(*({f.subject for f in world.of(name)} for name in names))) >= 100


def test_answers_are_one_word_or_two(world: FactSet) -> None:
    assert [f.id for f in world if len(f.answer.split()) > 2 or "-" in f.answer] == []
    two = world.where(lambda fact: " " in fact.answer)
    assert len(two) >= 100
    assert set(two.relations) >= {"capital", "city_country", "sport"}


def words(templates: list[str]) -> set[str]:
    return {w for t in templates for w in t.replace(",", " ").replace(".", " ").replace("'", " ").lower().split()}


def test_held_out_templates_use_no_word_that_the_prompts_lack(world_files: list[dict[str, Any]]) -> None:
    for each in world_files:
        assert words(each["held_out"]) - words(each["prompts"]) == set(), each["relation"]


def test_no_template_serves_two_relations(world_files: list[dict[str, Any]]) -> None:
    counts = Counter(t for each in world_files for t in (*each["prompts"], *each["held_out"]))
    assert [t for t, n in counts.items() if n > 1] == []


def test_no_subject_occurs_twice_in_a_relation(world: FactSet) -> None:
    counts = Counter((f.relation, f.subject.casefold()) for f in world)
    assert [pair for pair, n in counts.items() if n > 1] == []
