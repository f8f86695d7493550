"""``--verbose`` and ``--quiet``, the options that every command has, and the log records of the library."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from transformers.utils import logging as transformers_logging

import kn_attrib
from command_line import output, raise_from, run
from kn_attrib import Comparison, NeuronModel, Refinement, compare, load_model, refine_all, score
from kn_attrib.cli import app, modes
from kn_attrib.cli import compare as compare_command
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.comparison.effect_stage import Measurement
from kn_attrib.evaluation.comparison.grid import Factor, compare_grid
from kn_attrib.facts.facts import FactSet
from kn_attrib.store import read_json

STAMPED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) kn_attrib[.\w]*: \S", re.MULTILINE)


@pytest.fixture
def small(saved_bert: Path, facts_file: Path) -> list[object]:
    """Options of a comparison that takes a second."""
    given: list[object] = ["compare", "--model", saved_bert, "--facts", facts_file, "--keep", "unknown"]
    return [*given, "--methods", "random,activation", "--budgets", "1,3"]


@pytest.fixture
def no_bars() -> Iterator[None]:
    """As in the program: transformers shows no bars while it reads weights."""
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.enable_progress_bar()


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the program, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY = dict(commands(typer.main.get_command(app)))


def test_all_commands_are_there() -> None:
    names = {" ".join(path) for path in EVERY}
    assert names == {
        "compare", "report", "benchmark", "plants", "score", "methods", "models", "facts", "doctor", "protocol inj",
        "protocol del", "prompts", "read", "trace",
    }  # fmt: skip


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_the_three_options(path: tuple[str, ...]) -> None:
    options = {param.name: param.opts for param in EVERY[path].params}
    assert options["verbose"] == ["--verbose", "-v"]
    assert options["quiet"] == ["--quiet", "-q"]
    assert options["json"] == ["--json"]
    text = output(*path, "--help")
    assert "--json" in text
    with pytest.raises(ConfigError, match="--quiet and --verbose exclude one another"):
        raise_from(run(*path, *(["."] if path == ("report",) else []), "-q", "-v"))


# -- how much is told ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_bars")
def test_verbose_tells_what_is_done_with_time_and_level(saved_bert: Path, facts_file: Path) -> None:
    given = ["score", "--model", saved_bert, "--facts", facts_file, "--method", "activation"]
    plain, verbose, detailed = (run(*given, *flags) for flags in ([], ["-v"], ["-vv"]))
    assert plain.stderr == ""
    assert plain.stdout == verbose.stdout == detailed.stdout
    told = [[found["level"] for found in STAMPED.finditer(result.stderr)] for result in (verbose, detailed)]
    assert set(told[0]) == {"INFO"}
    assert set(told[1]) == {"INFO", "DEBUG"}
    assert len(told[0]) == len(verbose.stderr.splitlines())
    assert "loaded" in verbose.stderr
    assert "activation: 20 texts of 4 facts scored, " in verbose.stderr


def test_loggers_are_left_as_they_were(saved_bert: Path, facts_file: Path) -> None:
    loggers = [logging.getLogger(name) for name in (modes.LIBRARY, *modes.TOLD)]
    before = [(logger.level, list(logger.handlers)) for logger in loggers], logging.root.manager.disable
    for flags in (["-vv"], ["-q"], ["--json"]):
        output("facts", "--facts", facts_file, *flags)
        assert run("facts", "--facts", "nowhere", *flags).exception is not None
    assert ([(logger.level, list(logger.handlers)) for logger in loggers], logging.root.manager.disable) == before
    assert modes.modes() == modes.Modes()


@pytest.mark.usefixtures("no_bars")
def test_quiet_leaves_warnings_and_progress_out(
    saved_bert: Path, facts_file: Path, small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []

    def spy(*given: Any, progress: bool, **settings: Any) -> Comparison:
        shown.append(progress)
        return compare(*given, progress=progress, **settings)

    lines = facts_file.read_text().splitlines()
    monkeypatch.setattr(compare_command, "compare", spy)
    loud = run(*small, "--out", tmp_path / "loud")
    quiet = run(*small, "--out", tmp_path / "quiet", "--quiet")
    assert shown == [True, False]
    assert loud.exit_code == quiet.exit_code == 0
    assert quiet.stderr == ""
    # Warnings are errors in these tests, but for one who asks not to be warned.
    facts_file.write_text("\n".join([lines[0], lines[1].replace('"Rome"', '"Lutetia"')]))
    given = ["score", "--model", saved_bert, "--facts", facts_file, "--method", "random"]
    assert isinstance(run(*given).exception, UserWarning)
    result = run(*given, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "capital:France" in result.stdout


def test_they_are_keys_of_a_config_file_too(small: list[object], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("verbose: 2\njson: true\n")
    result = run(*small, "--out", tmp_path / "run", "--config", tmp_path / "run.yaml")
    assert "answers" in json.loads(result.stdout)
    assert "DEBUG kn_attrib" in result.stderr
    (tmp_path / "run.yaml").write_text("quiet: 3\n")
    with pytest.raises(ConfigError, match="quiet is 3; expected true or false"):
        raise_from(run(*small, "--config", tmp_path / "run.yaml"))


# -- they do not identify a run --------------------------------------------------------------------------------------


def stop_at_the_second_chunk(patched: pytest.MonkeyPatch) -> None:
    dropout = Measurement.dropout

    def stop(self: Measurement, evaluator: Any, targets: Sequence[Any]) -> None:
        if len(targets) == 1:  # the second chunk of four facts
            raise KeyboardInterrupt
        dropout(self, evaluator, targets)

    patched.setattr(Measurement, "dropout", stop)


@pytest.mark.parametrize("grid", [[], ["--grid", "threshold=0.1,0.5"]], ids=["one", "grid"])
def test_a_stopped_run_goes_on_with_or_without_them(
    grid: list[object], small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kn_attrib.evaluation.comparison.run.MEASURED_AT_ONCE", 3)
    asked = [*small, *grid, "--out", tmp_path / "run"]
    for flags, told in (([], False), (["--quiet"], False), (["-v", "--json"], True), ([], True)):
        with monkeypatch.context() as patched:
            stop_at_the_second_chunk(patched)
            result = run(*asked, *flags)
        assert result.exit_code == 130
        assert "the same command goes on from there" in result.stderr
        assert result.stdout == ""
        assert (f"Going on with the unfinished run in {tmp_path / 'run'}." in result.stderr) == told
    result = run(*asked, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["files"]["folder"] == str(tmp_path / "run")


def test_progress_is_no_setting_of_a_grid(tiny: NeuronModel, facts: FactSet, tmp_path: Path) -> None:
    factors = [Factor("threshold", (0.1, 0.5))]
    settings: dict[str, Any] = {"keep": ("unknown",), "budgets": (1,), "dropout": ()}
    found = compare_grid(tiny, facts, ["random"], factors, folder=tmp_path, progress=False, **settings)
    again = compare_grid(tiny, facts, ["random"], factors, folder=tmp_path, progress=True, **settings)
    assert again.rows.equals(found.rows)
    assert "progress" not in read_json(tmp_path / "grid.json")["settings"]


# -- the library -----------------------------------------------------------------------------------------------------


def test_the_library_prints_nothing_and_logs_what_it_does(
    make_tiny_bert: Callable[[], Any], facts: FactSet,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG, logger="kn_attrib")
    model = load_model(make_tiny_bert())
    refine_all(score(model, facts, "integrated_gradients"), Refinement())
    compare(model, facts, ["random", "activation"], keep=("unknown",), budgets=(1,), dropout=())
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert {record.name.split(".")[0] for record in caplog.records} == {"kn_attrib"}
    assert {record.levelno for record in caplog.records} == {logging.INFO, logging.DEBUG}
    told = caplog.text
    for what in (
        f"loaded {model.name}: BertForMaskedLM, masked, 3 layers of 48 neurons, torch.float32 on cpu",
        "rows at the answer are run by the wave, which passed its guards",
        "integrated_gradients: 20 texts of 4 facts scored, ",
        "4 of 4 facts are used",
        "random: 20 prompts scored, ",
        "interventions: 1 of 1 chunks of facts are done",
    ):
        assert what in told


def test_the_import_configures_nothing() -> None:
    library = logging.getLogger(kn_attrib.__name__)
    assert [type(handler) for handler in library.handlers] == [logging.NullHandler]
    assert library.level == logging.NOTSET
