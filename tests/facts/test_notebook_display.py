"""Facts in a notebook: what is shown is what they are, and nothing in them is markup."""

from __future__ import annotations

import re

import pytest

from kn_attrib import Fact, FactSet
from kn_attrib.display import LARGE_SHOWN, SHOWN, first_of, html_table, number

EVIL = "<script>alert('&')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"


def fact(name: str = "capital:France", relation: str = "capital", prompts: int = 2, held_out: int = 1) -> Fact:
    return Fact(
        id=name,
        relation=relation,
        subject="France",
        answer="Paris",
        prompts=tuple(f"Prompt {i}: [Y]" for i in range(prompts)),
        held_out=tuple(f"Held out {i}: [Y]" for i in range(held_out)),
    )


def shown(item: Fact | FactSet) -> str:
    html = item._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 1
    assert "background" not in html
    assert "color" not in html
    return html


def test_a_fact_shows_its_triple_and_its_texts() -> None:
    html = shown(fact())
    assert ">Fact capital:France</caption>" in html
    for text in ("France", "capital", "Paris", "Prompt 0: [Y]<br>Prompt 1: [Y]", "Held out 0: [Y]"):
        assert f">{text}</td>" in html
    assert "right too" not in html


def test_a_fact_shows_its_alternatives_and_that_nothing_is_held_out() -> None:
    html = shown(Fact("f", "capital", "Bolivia", "Sucre", ("[Y]",), alternatives=("La Paz", "Laz Paz")))
    assert ">La Paz, Laz Paz</td>" in html
    assert re.search(r">held out</th>\s*<td[^>]*>none</td>", html)


def test_many_texts_are_counted() -> None:
    html = shown(fact(prompts=SHOWN + 3))
    assert f"Prompt {SHOWN - 1}: [Y]<br>… and 3 more</td>" in html
    assert f"Prompt {SHOWN}:" not in html
    assert first_of(["a"] * SHOWN) == ("a",) * SHOWN


@pytest.mark.parametrize("field", ["id", "relation", "subject", "answer", "prompts", "held_out", "alternatives"])
def test_hostile_text_is_escaped(field: str) -> None:
    given = {"id": "f", "relation": "r", "subject": "s", "answer": "a", "prompts": ("[Y]",), "held_out": ("x [Y]",)}
    hostile = f"{EVIL} [Y]"
    changed = {**given, field: (hostile,) if field in ("prompts", "held_out", "alternatives") else hostile}
    evil = Fact(**changed)  # type: ignore[arg-type]
    assert ESCAPED in shown(evil)
    assert "<script" not in shown(evil) + shown(FactSet((evil,)))


def test_a_set_counts_its_facts_by_relation() -> None:
    facts = FactSet(tuple(fact(f"{r}:{i}", r) for r, n in (("capital", 4), ("sport", 1)) for i in range(n)))
    html = shown(facts)
    assert ">5 facts of 2 relations</caption>" in html
    assert re.search(r">capital</th>\s*<td[^>]*>4</td>\s*<td[^>]*>(France → Paris(; )?){3}</td>", html)
    assert re.search(r">sport</th>\s*<td[^>]*>1</td>", html)


def test_an_empty_set_says_so() -> None:
    html = shown(FactSet(()))
    assert ">0 facts of 0 relations</caption>" in html
    assert "<th" not in html


def test_relations_beyond_the_table_are_counted() -> None:
    html = shown(FactSet(tuple(fact(f"{i}", f"relation {i}") for i in range(LARGE_SHOWN + 1))))
    assert html.count("<tr>") == 1 + LARGE_SHOWN
    assert "… and 1 more relation</p>" in html


def test_captions_headers_and_notes_are_escaped_too() -> None:
    html = html_table(EVIL, [(EVIL, [EVIL, 2])], (EVIL, EVIL), (EVIL,))
    assert html.count(ESCAPED) == 6
    assert "<script" not in html


def test_numbers_have_three_digits_and_a_minus_sign() -> None:
    assert [number(x) for x in (0.12345, -0.5, 1234.0, 0.0)] == ["0.123", "−0.5", "1.23e+03", "0"]
