"""The page of methods: made from docstrings, and as committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kn_attrib import get_method, list_methods
from kn_attrib.scoring.catalogue import catalogue, entry

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_committed_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == catalogue(), "run: kn-attrib methods --markdown > docs/methods.md"


@pytest.mark.parametrize("name", list_methods())
def test_an_entry_has_definition_parameters_and_reference(name: str) -> None:
    text, cls = entry(name), get_method(name)
    assert text.startswith(f"## {name}\n\n{cls.summary()}")
    assert "``" in text.split("Fitted on:")[0]  # a formula
    for parameter in cls.defaults():
        assert f"- `{parameter}`: " in text
    assert "Reference: " in text
