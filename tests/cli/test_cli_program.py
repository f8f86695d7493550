"""The command line as a program: what `main` and ``python -m kn_attrib`` print, and where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import typer

from kn_attrib.cli import doctor, main


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


Ended = tuple[object, str, str]
Program = Callable[..., Ended]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Runs `main` with some arguments; returns status, stdout and stderr."""
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["kn-attrib", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--limit", "-1"], "Invalid value for '--limit': .* (see kn-attrib compare --help)."),
        (["compare", "--limit", "many"], "Invalid value for '--limit': .* (see kn-attrib compare --help)."),
        (["compare", "--modle", "x"], "No such option: --modle .* (see kn-attrib compare --help)."),
        (["score", "--model"], "Option '--model' requires an argument."),
        (["report"], "Missing argument 'FOLDER...' (see kn-attrib report --help)."),
        (["protocol", "x"], "No such command 'x' (see kn-attrib protocol --help)."),
        (["facts", "--json", "--facts", "nowhere"], "no facts at 'nowhere'; expected 'world'.*"),
        (["facts", "--json", "--nothing"], "No such option: --nothing (see kn-attrib facts --help)."),
    ],
)
def test_what_is_asked_wrongly_is_one_line_on_stderr_and_status_2(
    program: Program, arguments: list[str], said: str
) -> None:
    status, out, err = program(*arguments)
    assert (status, out) == (2, "")
    pattern = re.escape(said).replace(r"\.\*", ".*")
    assert re.fullmatch(f"kn-attrib: error: {pattern}\n", err), err


def test_help_and_versions_are_no_errors(program: Program) -> None:
    for arguments in (["--help"], ["compare", "--help"], ["protocol", "inj", "--help"]):
        status, out, err = program(*arguments)
        assert not status
        assert out.startswith(f"Usage: kn-attrib{' ' * (len(arguments) > 1)}{' '.join(arguments[:-1])} [OPTIONS]")
        assert err == ""
    status, out, _ = program("--version")
    assert not status
    packages = [line.split()[0] for line in out.splitlines()]
    assert {"python", "kn_attrib", "torch", "transformers", "captum"} <= set(packages)
    assert "not installed" not in out


@pytest.mark.parametrize("group", [[], ["protocol"]])
def test_a_group_without_a_command_shows_its_help(program: Program, group: list[str]) -> None:
    status, out, err = program(*group)
    assert (status, out) == (2, "")
    assert err.startswith("Usage: kn-attrib")
    assert "Commands:" in err
    assert "error" not in err


def test_the_status_of_a_command_is_the_programs(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "findings", lambda: iter([doctor.Finding("GPU", False, "on fire")]))
    assert program("doctor")[0] == 1
    assert program("doctor", "--json")[0] == 1

    def stop(ending: BaseException) -> None:
        raise ending

    for ending, status in ((typer.Abort(), 1), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr(doctor, "findings", partial(stop, ending))
        ended, out, _ = program("doctor", "--json")
        assert (ended, out) == (status, "")


def test_completion_works() -> None:
    asked = {"_KN_ATTRIB_COMPLETE": "complete_bash", "COMP_WORDS": "kn-attrib compare --qu", "COMP_CWORD": "2"}
    code = "import sys; sys.argv[0] = 'kn-attrib'; from kn_attrib.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **asked}
    )
    assert done.stdout.split() == ["--quiet"]
    assert done.stderr == ""


def test_quiet_silences_the_warnings_of_the_program(
    program: Program, saved_bert: Path, facts_file: Path, recwarn: pytest.WarningsRecorder
) -> None:
    lines = facts_file.read_text().splitlines()
    facts_file.write_text("\n".join([lines[0], lines[1].replace('"Rome"', '"Lutetia"')]))
    warnings.simplefilter("default")
    given = ["score", "--model", str(saved_bert), "--facts", str(facts_file), "--method", "random"]
    for flags, count in (([], 1), (["--json"], 1), (["--quiet"], 0)):
        status, out, err = program(*given, *flags)
        assert not status
        assert out
        assert err.count("kn-attrib: warning: 5 of 10 prompts were left out") == len(err.splitlines()) == count
    assert not recwarn.list


def test_python_m_kn_attrib(facts_file: Path) -> None:
    command = [sys.executable, "-m", "kn_attrib", "facts", "--facts", str(facts_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 facts of 1 relations" in done.stdout
    assert done.stderr == ""
