"""Commands and texts of methods of every wrong kind, and what is said of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostile_commands import assert_says, said_by
from kn_attrib.errors import MethodError
from kn_attrib.scoring.method_specs import make_method


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


METHODS: list[tuple[Any, str]] = [
    ("", "unknown method ''"),
    (" ", "unknown method ' '"),
    ("../../etc/passwd", "unknown method '../../etc/passwd'"),
    ("😀", "unknown method '😀'"),
    ("random\0", "unknown method 'random.x00'"),
    ("a" * 10_000, "unknown method 'aaa"),
    ("integrated_gradient", "Did you mean 'integrated_gradients'"),
    ("integrated_gradients(steps=", "cannot read method .*; expected name.param=value"),
    ("integrated_gradients(steps", "cannot read method"),
    ("integrated_gradients(steps=4", "cannot read method"),
    ("integrated_gradients(steps=4))", "cannot read method"),
    ("integrated_gradients(steps=4).x", "cannot read method"),
    ("integrated_gradients(4)", "cannot read method"),
    ("integrated_gradients(*[4])", "cannot read method"),
    ("integrated_gradients(steps=x)", "cannot read method"),
    ("integrated_gradients(steps=open('x'))", "cannot read method"),
    ("integrated_gradients(steps=lambda: 0)", "cannot read method"),
    ("integrated_gradients(steps=" + "1" * 5000 + ")", "cannot read method"),
    ("integrated_gradients(steps=" + "(" * 500 + ")" * 500 + ")", "cannot read method"),
    ("integrated_gradients(steps=\0)", "cannot read method"),
    ("integrated_gradients(stepz=4)", "unknown parameter 'stepz'. Did you mean 'steps'"),
    ("integrated_gradients(steps=1.5)", "parameter 'steps' is 1.5; expected int"),
    ("integrated_gradients(steps='4')", "parameter 'steps' is '4'; expected int"),
    ("integrated_gradients(steps=1e3)", "parameter 'steps' is 1000.0; expected int"),
    ("integrated_gradients(steps=None)", "parameter 'steps' is None; expected int"),
    ("integrated_gradients(steps=[4])", "parameter 'steps' is .4.; expected int"),
    ("integrated_gradients(rule='gauss')", "unknown rule 'gauss'"),
    ("integrated_gradients:nope", "unknown preset 'nope'"),
    ("integrated_gradients:../x", "unknown preset '../x'"),
    ("random@nope", "unknown units 'nope'"),
    ("@pca", "unknown method '@pca'"),
    ("random@", "unknown method 'random@'"),
    ("random@pca(k=", "cannot read method|unknown method"),
    ("random@pca(k=0)", "k is 0; expected at least 1"),
    ("random@pca(k=1.5)", "parameter 'k' is 1.5; expected int"),
    ("random@pca(size=3)", "unknown parameter 'size'"),
    ("random@heads(k=3)", "unknown parameter 'k'"),
    ("random@nmf(k=8)@heads", "names units other than neurons"),
    (3, "3 is not a method; expected a name"),
    (None, "None is not a method"),
    (["random"], "is not a method"),
]


@pytest.mark.parametrize(("spec", "said"), METHODS, ids=[repr(spec)[:40] for spec, _ in METHODS])
def test_a_bad_text_of_a_method(spec: Any, said: str) -> None:
    with pytest.raises(MethodError, match=said):
        make_method(spec)


COMMANDS: list[tuple[tuple[str, ...], str]] = [
    (("score", "--method", "random(seed="), "cannot read method"),
    (("score", "--nonsense"), "No such option"),
    (("score", "--limit", "1e3"), "Invalid value for '--limit'"),
    (("score", "--limit", "9" * 5000), "Invalid value for '--limit'"),
    (("score", "--seed", "1.5"), "Invalid value for '--seed'"),
    (("score", "--fact", "../x"), "unknown fact '../x'"),
    (("score", "--relations", ","), "--relations is ','; expected names separated by commas"),
    (("score", "--relations", "captal"), "unknown relation 'captal'. Did you mean 'capital'"),
    (("score", "--answer-words", "99"), "none of the 4 facts has an answer of 99 words"),
    (("score", "--out", "facts.jsonl"), "facts.jsonl exists; choose another --out file, or say --overwrite"),
    (("score", "--out", ".", "--overwrite"), "is a folder; expected a file to write to"),
    (("score", "--out", "facts.jsonl/x"), "cannot write to facts.jsonl|Not a directory"),
    (("score", "--out", "a" * 5000), "cannot write aaa.*: File name too long"),
    (("facts", "--relations", " , "), "--relations is ' , '; expected names"),
    (("facts", "--out", "facts.jsonl"), "facts.jsonl exists"),
    (("facts", "--out", ".", "--overwrite"), "is a folder; expected a file"),
    (("facts", "--fact", "x"), "unknown fact 'x'"),
]


@pytest.mark.parametrize(("arguments", "said"), COMMANDS, ids=[" ".join(a)[:40] for a, _ in COMMANDS])
def test_a_bad_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts_file: Path, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(facts_file.parent)
    before = facts_file.read_bytes()
    assert_says(said_by(*arguments, "--facts", facts_file), said)
    assert facts_file.read_bytes() == before


OTHERS: list[tuple[tuple[str, ...], str]] = [
    (("report",), "Missing argument"),
    (("report", "nowhere"), "nowhere holds no saved comparison; expected manifest.json and rows, facts"),
    (("report", "a" * 5000), "cannot read the comparison in aaa.*File name too long"),
    (("benchmark", "--split", "train", "--limit", "1"), "unknown split 'train'"),
    (("benchmark", "--model", "../x"), "unknown planted benchmark of model '../x'"),
    (("benchmark", "--max-prompts", "0"), "Invalid value for '--max-prompts'"),
    (("benchmark", "--plants", "nowhere", "--model", "zoo:bert-facts"), "unknown planted benchmark of model"),
    (("benchmark", "--methods", "random(seed=x)"), "cannot read method"),
    (("plants", "--jobs", "0"), "Invalid value for '--jobs'"),
    (("plants", "--model", "../x", "--jobs", "1"), "unknown model '../x'"),
    (("protocol", "inj", "--ratio", "nan"), "--ratio is 'nan'; expected numbers separated by commas"),
    (("protocol", "inj", "--ratio", "inf"), "--ratio is 'inf'; expected numbers"),
    (("protocol", "inj", "--ratio", "1%"), "--ratio is '1%'; expected numbers"),
    (("protocol", "del", "--limit", "-1"), "Invalid value for '--limit'"),
    (("protocol", "del", "--model", "zoo:nope"), "unknown zoo model 'nope'"),
    (("protocol", "other"), "No such command 'other'"),
    (("models", "--check", "zoo:nope"), "unknown zoo model 'nope'"),
    (("models", "--check", "a" * 5000), "cannot be opened: File name too long"),
    (("methods", "--plugin", "nowhere.py"), "plug-in 'nowhere.py' does not exist"),
    (("nope",), "No such command 'nope'"),
]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("arguments", "said"), OTHERS, ids=[" ".join(a)[:40] for a, _ in OTHERS])
def test_a_bad_command_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_says(said_by(*arguments), said)
