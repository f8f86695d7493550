"""What the program says of names, of settings that exclude one another, and of texts that look like codes."""

from __future__ import annotations

from pathlib import Path

import pytest

import kn_attrib
from command_line import output, raise_from, run
from kn_attrib.cli import screen
from kn_attrib.errors import ConfigError, MethodError


@pytest.mark.parametrize("command", ["compare", "read", "benchmark"])
def test_an_unknown_method_may_be_one_of_a_file(command: str, tmp_path: Path, saved_bert: Path) -> None:
    given = [] if command == "benchmark" else ["--model", saved_bert]
    asked = [command, *given, "--methods", "loudness", "--out", tmp_path / "run"]
    with pytest.raises(MethodError, match=r"unknown method 'loudness'.*Methods of your own: --plugin FILE\.$"):
        raise_from(run(*asked))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("command", [["methods", "loudness"], ["score", "--method", "loudness"]], ids=str)
def test_with_a_file_it_is_not_said(command: list[str], tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from kn_attrib import register\nfrom kn_attrib.methods import Activation\n"
        "register('mine')(type('Mine', (Activation,), {}))\n",
        encoding="utf-8",
    )
    with pytest.raises(MethodError, match=r"unknown method 'loudness'.* slimming\.$"):
        raise_from(run(*command, "--plugin", plugin))


def test_one_method_is_shown_alone() -> None:
    text = output("methods", "layer_integrated_conductance")
    assert text.startswith("layer_conductance (also layer_integrated_conductance)\n")
    assert text.count("parameters:") == 1
    with pytest.raises(MethodError, match=r"unknown method 'loud'.*--plugin FILE"):
        raise_from(run("methods", "loud"))
    with pytest.raises(ConfigError, match="--markdown prints the page of all methods"):
        raise_from(run("methods", "random", "--markdown"))


@pytest.mark.parametrize("text", ["none,random", "random,all", "all,none"])
def test_all_and_none_stand_alone_among_controls(text: str, tmp_path: Path, saved_bert: Path) -> None:
    asked = ["compare", "--model", saved_bert, "--methods", "random", "--out", tmp_path / "run"]
    with pytest.raises(ConfigError, match=f"--controls is '{text}'; '(all|none)' stands alone"):
        raise_from(run(*asked, "--controls", text))


def test_names_between_colons_are_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show([["seat:France: a", ":smile:"]], ["fact :warning:", "b"], "seat:France: its :flag_france:")
    printed = capsys.readouterr().out
    for text in ("seat:France: a", ":smile:", "fact :warning:", "seat:France: its :flag_france:"):
        assert text in printed


def test_the_package_names_what_it_offers_and_nothing_else() -> None:
    shown = [name for name in dir(kn_attrib) if not name.startswith("_")]
    assert shown == sorted(name for name in kn_attrib.__all__ if not name.startswith("_"))
    assert {"compare", "Comparison"} <= set(shown)


def test_one_fact_takes_the_place_of_a_limit(tmp_path: Path) -> None:
    asked = ["read", "--fact", "capital:France", "--limit", 3, "--out", tmp_path / "run"]
    with pytest.raises(ConfigError, match="--limit changes nothing beside --fact"):
        raise_from(run(*asked))
