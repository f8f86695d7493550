"""Settings, options and texts of methods of every wrong kind, and what is said of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile_commands import assert_says, said_by

WHOLE, NUMBER, YES = "expected a whole number", "expected a number", "expected true or false"
TEXT = r"expected text \(in quotes, where YAML takes it for something else\)"
CONFIGS: list[tuple[bytes, str]] = [
    (b"", "holds NoneType; expected keys and values"),
    (b"text", "holds str; expected keys and values"),
    (b"[1]", "holds list; expected keys and values"),
    (b"\x1f\x8b\x08\x00", "cannot read --config .*bad.yaml: "),
    (b"a\x00b: 1", "cannot read --config .*unacceptable character"),
    (b"a: [1", "cannot read --config .*while parsing"),
    (b"a: 1\n b: 2", "cannot read --config .*mapping values are not allowed"),
    (b"\tlimit: 3", "cannot read --config .*cannot start any token"),
    (b"--- {}\n--- {}", "expected a single document in the stream"),
    (b"%YAML 9.9\n---\na: 1", "found incompatible YAML document"),
    (b"limit: *a", "found undefined alias"),
    (b"limit: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    (b"limit: !!int ''", "a value is not of the kind that its tag says"),
    (b"limit: !!int x", "cannot read --config .*invalid literal"),
    (b"curves: !!bool foo", "a value is not of the kind that its tag says"),
    (b"out: !!timestamp foo", "a value is not of the kind that its tag says"),
    (b"keep: !!map [a]", "expected a mapping node, but found sequence"),
    (b"out: 2020-13-45", "cannot read --config .*month must be in"),
    (b"? [a]\n: 1", "found unhashable key"),
    (b"<<: 1", "could not determine a constructor for the tag .*merge"),
    (b"1: 2", "unknown setting '1'. "),
    (b"limmit: 3", "unknown setting 'limmit'. Did you mean 'limit'"),
    (b"config: other.yaml", "unknown setting 'config'"),
    (b"help: true", "unknown setting 'help'"),
    (b"control-facts: 1\ncontrol_facts: 2", "control_facts is given twice"),
    (b"limit:", "limit has no value; give one, or leave it out"),
    *((f"{name}: {value}".encode(), rf"{name} is {said}; {WHOLE}") for name in ("limit", "seed", "control-facts")
      for value, said in ((".inf", "inf"), (".nan", "nan"), ("1.5", "1.5"), ("true", "True"), ("{a: 1}", ".'a': 1."))),
    (b"limit: many", "Invalid value for '--limit'"),
    (b"limit: 1e3", "Invalid value for '--limit'"),
    (b"limit: -1", "Invalid value for '--limit'"),
    (b"max_prompts: -1", "Invalid value for '--max-prompts'"),
    (b"answer_words: -1", "Invalid value for '--answer-words'"),
    (b"factor: big", "Invalid value for '--factor'"),
    (b"factor: true", f"factor is True; {NUMBER}"),
    (b"threshold: [0.1, true]", f"threshold is True; {NUMBER}"),
    (b"threshold: 7", "refinement threshold is 7.0; expected a number from 0 to 1"),
    (b"threshold: .nan", "refinement threshold is nan; expected a number from 0 to 1"),
    (b"share: -0.5", "refinement share is -0.5; expected a number from 0 to 1"),
    (b"refinement: dai", "unknown refinement preset 'dai'. Did you mean 'dai2022'"),
    *((f"{name}: 3".encode(), f"{name} is 3; {YES}") for name in ("chat", "curves", "normalised", "overwrite")),
    (b"chat: maybe", "Invalid value for '--chat'"),
    *((f"{name}: yes".encode(), f"{name} is True; {TEXT}") for name in
      ("model", "facts", "methods", "relations", "budgets", "interventions", "controls", "keep", "device", "dtype")),
    (b"out: 2020-01-01", f"out is datetime.date.*; {TEXT}"),
    (b"methods: {a: 1}", f"methods is .'a': 1.; {TEXT}"),
    (b"methods: [null]", f"methods is None; {TEXT}"),
    (b"methods: [[random]]", f"methods is .'random'.; {TEXT}"),
    (b"methods: &x [*x]", f"methods is .*; {TEXT}"),
    (b"budgets: [1.5]", "--budgets is '1.5'; expected whole numbers separated by commas"),
    (b"budgets: ten", "--budgets is 'ten'; expected whole numbers"),
    (b"plugin: [3]", "plug-in '3' does not exist"),
    (b"plugin: {a: 1}", f"plugin is .'a': 1.; {TEXT}"),
    (b"grid: {factor: 3}", r"grid\.factor is 3; expected a list of levels"),
    (b"grid: {factor: null}", r"grid\.factor is None; expected a list of levels"),
    (b"grid: {factor: abc}", r"grid\.factor is 'abc'; expected a list of levels"),
    (b"grid: {factor: [null]}", r"grid\.factor is \[None\]; expected a list of levels"),
    (b"grid: {factor: [[1]]}", r"grid\.factor is \[\[1\]\]; expected a list of levels"),
    (b"grid: {factor: []}", "grid factor: levels are .*; expected different ones, at least one"),
    (b"grid: {nothing: [1]}", "unknown setting 'nothing'"),
    (b"grid: [factor]", "grid 'factor'; expected NAME=LEVEL,LEVEL"),
    (b"grid: ['factor=[']", "grid 'factor=.': a level cannot be read"),
    (b"grid: ['factor=!!int x']", "a level cannot be read .invalid literal"),
    (b"grid: ['factor=!!bool x']", "a level cannot be read"),
    (b"grid: ['factor=1,1']", "expected different ones"),
    (b"grid: ['factor=abc']", "grid factor: level 'abc'; expected numbers"),
    (b"grid: ['max_prompts=1.5']", "grid max_prompts: level 1.5; expected whole numbers"),
    (b"grid: ['max_prompts=true']", "grid max_prompts: level True; expected whole numbers"),
    (b"grid: ['normalised=1']", "grid normalised: level 1; expected true or false"),
    (b"grid: ['threshold=2']", "refinement threshold is 2; expected a number from 0 to 1"),
    (b"grid: ['refinement=../../x']", "level '../../x'; expected no '/'"),
    (b"grid: ['random.seed=/tmp/x']", "level '/tmp/x'; expected no '/'"),
    (b"grid: ['random.seed={a: 1}']", "level .'a': 1.; expected plain values"),
    (b'out: "a\\0b"', "Invalid value for '--out'.*null byte"),
    (b'out: "\\ud800"', "Invalid value for '--out'.*surrogates not allowed"),
    (b"out: " + b"a" * 5000, "cannot write to aaa.*: File name too long; choose another --out folder"),
    (b"out: /dev/null", "cannot write to /dev/null|/dev/null is a file|/dev/null exists"),
    (b"plain-text: nowhere.txt", "cannot read the text file nowhere.txt"),
    (b"plain-text: " + b"a" * 5000, "cannot read the text file aaa.*File name too long"),
    (b'model: "a\\0b"', "unknown model 'a.x00b'"),
    (b"model: " + b"a" * 5000, "model 'aaa.*cannot be opened: File name too long; expected zoo:NAME"),
    (b"model: zoo:../../etc", "unknown zoo model '../../etc'"),
    (b"dtype: 32", "unknown dtype '32'"),
    (b"methods: ','\nmodel: zoo:no", "unknown zoo model 'no'"),
]  # fmt: skip


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("content", "said"), CONFIGS, ids=[content[:40].decode("latin-1") for content, _ in CONFIGS])
def test_a_bad_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts_file: Path, content: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    found = said_by("compare", "--config", path)
    assert_says(found, said)


def test_aliases_that_would_fill_the_memory_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines) + "\nmethods: *a11\n")
    assert "unknown setting 'a0'" in said_by("compare", "--config", path)
    path.write_text("methods:\n- " + "\n- ".join(line.partition(" ")[2] for line in lines))
    assert "expected text" in said_by("compare", "--config", path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "crlf"])
def test_odd_configs_are_read_rightly(tmp_path: Path, facts_file: Path, encoding: str) -> None:
    text = "# é\nfacts: facts.jsonl\nfact: capital:Nowhere\n".replace("facts.jsonl", str(facts_file))
    path = tmp_path / "good.yaml"
    path.write_bytes(text.replace("\n", "\r\n").encode() if encoding == "crlf" else text.encode(encoding))
    # What the command says of the fact shows that both settings were read as they stand there.
    assert "unknown fact 'capital:Nowhere'" in said_by("score", "--config", path)
