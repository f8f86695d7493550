"""The command line as a program: what `main` and ``python -m kn_attrib`` print, and where."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from kn_attrib.cli import main


def test_main_turns_errors_into_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kn-attrib", "facts", "--facts", "nowhere.jsonl"])
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("kn-attrib: error: no facts at 'nowhere.jsonl'; expected 'world'")
    assert captured.err.count("\n") == 1


def test_main_says_in_one_line_what_is_skipped(
    saved_bert: Path, facts_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = facts_file.read_text().splitlines()
    facts_file.write_text("\n".join([lines[0], lines[1].replace('"Rome"', '"Lutetia"')]))
    arguments = ["score", "--model", str(saved_bert), "--facts", str(facts_file), "--method", "random"]
    monkeypatch.setattr(sys, "argv", ["kn-attrib", *arguments])
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert said[0].startswith(
        "kn-attrib: warning: 5 of 10 prompts were left out (answer unknown to the tokenizer: 5); the"
    )


def test_python_m_kn_attrib(facts_file: Path) -> None:
    command = [sys.executable, "-m", "kn_attrib", "facts", "--facts", str(facts_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 facts of 1 relations" in done.stdout
    assert done.stderr == ""
