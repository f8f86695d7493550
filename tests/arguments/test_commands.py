"""No option of a command is ignored: each changes what the command does or prints, or is refused; so does its setting.

Who adds an option adds it to `OTHER`: `test_every_option_has_a_case` fails until then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import typer
import yaml

import kn_attrib.cli
from argument_cases import seen
from command_line import run
from conftest import make_facts
from kn_attrib import NeuronModel
from kn_attrib.cli import app, benchmark, compare, plants, report
from kn_attrib.evaluation.experiment import Experiment
from kn_attrib.evaluation.firing.firing import Firing
from kn_attrib.evaluation.protocols.deletion import DeletionProtocol
from kn_attrib.evaluation.protocols.injection import InjectionProtocol
from kn_attrib.evaluation.reading.reading import Reading
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.evaluation.tracing.trace import Tracing
from kn_attrib.scoring.registry import load_plugin

PLUGIN = """
from kn_attrib import register
from kn_attrib.methods import Activation

register("mine")(type("Mine", (Activation,), {}))
"""
Options = dict[str, Any]
options = import_module("kn_attrib.cli.options")  # the package has a function of that name

MODEL: Options = {"model": "m", "chat": True, "device": "cpu", "dtype": "float64"}
FACTS: Options = {"facts": "FOLDER/two.jsonl", "relations": "none", "answer_words": 2}
PROTOCOL: Options = {
    **MODEL, **FACTS, "methods": "random", "ratio": "0.5", "limit": 1, "max_prompts": 2, "seed": 3,
    "fact": "capital:Spain", "out": "FOLDER/other", "plugin": ["FOLDER/plugin.py"], "overwrite": True, "markdown": True,
}  # fmt: skip
OTHER: dict[str, Options] = {
    "compare": {
        **MODEL, **FACTS, "methods": "random", "limit": 1, "max_prompts": 2, "budgets": "3", "refinement": "eleuther",
        "threshold": 0.5, "share": 0.5, "interventions": "mean", "factor": 3.0, "control_facts": 1, "controls": "none",
        "plain_text": "FOLDER/text.txt", "curves": True, "keep": "unknown", "normalised": True,
        "grid": ["threshold=0.1,0.2"], "seed": 3, "plugin": ["FOLDER/plugin.py"], "out": "FOLDER/other",
        "overwrite": True,
    },
    "report": {
        "folders": "elsewhere", "markdown": True, "leaderboard": "FOLDER/new.json", "dataset": "FOLDER/data",
        "license": "cc0-1.0", "overwrite": True,
    },
    "benchmark": {
        "model": ["zoo:bert-facts"], "methods": "random", "split": "all", "plants": "elsewhere", "limit": 1,
        "max_prompts": 2, "contrast_facts": 1, "seed": 3, "plugin": ["FOLDER/plugin.py"], "out": "FOLDER/other",
        "overwrite": True,
    },
    "read": {
        **MODEL, **FACTS, "methods": "random", "corpus": "FOLDER/text.txt", "max_tokens": 9, "contexts": "masks",
        "top": 2, "budget": 2, "neurons": "L0:1", "limit": 1, "max_prompts": 2, "seed": 3, "out": "FOLDER/other",
        "fact": "capital:Spain", "plugin": ["FOLDER/plugin.py"], "overwrite": True, "markdown": True,
    },
    "prompts": {
        **MODEL, **FACTS, "methods": "random", "texts": "FOLDER/text.txt", "texts_per_group": 2, "words": 3,
        "reference": 4, "budget": 2, "limit": 1, "max_prompts": 2, "seed": 3, "out": "FOLDER/other",
        "fact": "capital:Spain", "plugin": ["FOLDER/plugin.py"], "overwrite": True, "markdown": True,
    },
    "trace": {
        **MODEL, **FACTS, "methods": "random", "kinds": "hidden,ffn", "severed": "ffn", "window": 1,
        "corruption": "uniform", "noise": 1.0, "samples": 2, "k": 2, "limit": 1, "max_prompts": 2, "seed": 3,
        "fact": "capital:Spain", "out": "FOLDER/other", "plugin": ["FOLDER/plugin.py"], "overwrite": True,
        "markdown": True,
    },
    "plants": {"model": ["zoo:bert-facts"], "seed": 3, "out": "FOLDER/other", "jobs": 1, "overwrite": True},
    "score": {
        **MODEL, **FACTS, "fact": "capital:Spain", "method": "random", "refinement": "eleuther", "limit": 1, "seed": 3,
        "plugin": ["FOLDER/plugin.py"], "out": "FOLDER/new.safetensors", "overwrite": True,
    },
    "methods": {"name": "random", "plugin": ["FOLDER/plugin.py"], "markdown": True},
    "models": {"check": "m", "ffn_pattern": "x.{i}", "chat": True, "dtype": "float64", "device": "cpu"},
    "facts": {
        **FACTS, "fact": "capital:Spain", "model": "m", "chat": True, "out": "FOLDER/new.jsonl", "overwrite": True,
    },
    "doctor": {},
    "protocol inj": {**PROTOCOL, "information": "unknown", "loss": 0.5, "steps": 3, "rate": 0.5},
    "protocol del": {**PROTOCOL, "negatives": 3, "text": "FOLDER/text.txt", "first_layer": 1},
}  # fmt: skip
"""Of each option another value than is given or the default."""
GIVEN: dict[str, Options] = {
    **{
        name: {"facts": "FOLDER/facts.jsonl", "out": "FOLDER/run"}
        for name in ("compare", "prompts", "read", "trace", "protocol inj", "protocol del")
    },
    "benchmark": {"out": "FOLDER/run"},
    "plants": {"model": ["zoo:gpt2-facts"], "out": "FOLDER/run"},
    "score": {"facts": "FOLDER/facts.jsonl", "method": "activation"},
    "facts": {"facts": "FOLDER/facts.jsonl"},
    "report": {"folders": "somewhere"},
}
"""What is given in any case."""
HELD = {"out": "FOLDER/held"}
BESIDE: dict[tuple[str, str], Options] = {
    ("plants", "jobs"): {"model": ["zoo:bert-facts", "zoo:gpt2-facts"]},
    ("report", "license"): {"dataset": "FOLDER/data"},
    ("report", "overwrite"): {"dataset": "FOLDER/data"},
    ("score", "seed"): {"method": "random"},
    ("score", "overwrite"): {"out": "FOLDER/held/file"},
    ("facts", "overwrite"): {"out": "FOLDER/held/file"},
    **{
        (name, "overwrite"): HELD
        for name in ("compare", "prompts", "read", "trace", "benchmark", "plants", "protocol inj", "protocol del")
    },
}
"""What is to be given for an option to have an effect."""


def commands() -> dict[str, Any]:
    """All commands by name, those of groups too."""
    top: Any = typer.main.get_command(app)
    groups = {name: getattr(each, "commands", None) for name, each in top.commands.items()}
    inner = {f"{name} {own}": each for name, group in groups.items() if group for own, each in group.items()}
    return {name: each for name, each in top.commands.items() if not groups[name]} | inner


COMMANDS = commands()
ELSEWHERE = ("help", "config", "verbose", "quiet", "json")
"""Options that one place gives to all commands, and tests/cli tests on all of them."""
OPTIONS = {name: {p.name: p for p in each.params if p.name not in ELSEWHERE} for name, each in COMMANDS.items()}
PAIRS = [(name, option) for name, own in OPTIONS.items() for option in own]
SETTINGS = [(name, option) for name, option in PAIRS if any(p.name == "config" for p in COMMANDS[name].params)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that options name."""
    make_facts().save(tmp_path / "facts.jsonl")
    make_facts()[:2].save(tmp_path / "two.jsonl")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "text.txt").write_text("Rome is in Italy .\n")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "file").write_text("x")
    return tmp_path


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, load_tiny: Callable[..., NeuronModel], registry: object) -> list[Any]:
    """What commands have done: what takes long is noted instead, with all that it was given."""
    found: list[Any] = []

    def noting(name: str, result: Any = None) -> Callable[..., Any]:
        def note(*args: Any, **given: Any) -> Any:
            found.append((name, [repr(each) for each in args], {key: repr(each) for key, each in given.items()}))
            return result

        return note

    def ran(run: Experiment[Any, Any, Any]) -> SimpleNamespace:
        found.append((run.settings, run.scorers, run.facts, run.journal.folder))
        return SimpleNamespace(summary="summary")

    for place, name, result in (
        (options, "load_model", load_tiny("masked")), (options, "load_plugin", None), (compare, "compare", None),
        (compare, "compare_grid", None), (compare, "publish", None), (compare, "publish_grid", None),
        (benchmark, "benchmark", None), (benchmark, "_publish", None), (plants, "_made", "made"),
        (report, "_loaded", "comparison"), (report, "publish", None), (report, "_export", None),
        (report, "leaderboard_page", "page"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, noting(name, result))
    monkeypatch.setattr(options, "load_plugin", lambda path: found.append(load_plugin(path)))
    monkeypatch.setattr(plants, "ProcessPoolExecutor", noting("pool", nullcontext(SimpleNamespace(map=lambda *_: []))))
    for protocol in (DeletionProtocol, Firing, InjectionProtocol, Reading, Tracing):
        monkeypatch.setattr(protocol, "run", ran)
        monkeypatch.setattr(protocol, "tables", lambda *_: [TitledTable("title", pd.DataFrame({"a": [1]}))])
        monkeypatch.setattr(protocol, "publish", lambda *_: Path("page"))
    monkeypatch.setattr(kn_attrib.cli.doctor, "findings", lambda: [])
    return found


def words(command: str, given: Options) -> list[str]:
    """A command as it is typed."""
    found = command.split()
    for name, value in given.items():
        option = OPTIONS[command].get(name)
        flag = [] if option is not None and option.param_type_name == "argument" else [f"--{name.replace('_', '-')}"]
        flag = flag if option is None or not flag else [option.opts[0]]
        for each in value if isinstance(value, list) else [value]:
            found += flag if each is True else [*flag, str(each)]
    return found


def outcome(command: str, given: Options, folder: Path, done: list[Any], registry: dict[str, Any]) -> str:
    """What a command does and prints; what it makes and registers is forgotten."""
    before = dict(registry)
    done.clear()
    result = run(*[word.replace("FOLDER", str(folder)) for word in words(command, given)])
    registry.clear()
    registry.update(before)
    for file in folder.glob("new.*"):
        file.unlink()
    return f"{result.exit_code} {result.output} {result.exception!r} {seen(done)}"


def test_every_option_has_a_case() -> None:
    assert {name: sorted(own) for name, own in OTHER.items()} == {name: sorted(own) for name, own in OPTIONS.items()}
    assert [p.name for p in typer.main.get_command(app).params] == ["version", "install_completion", "show_completion"]


@pytest.mark.parametrize(("command", "option"), PAIRS, ids=[f"{name} {option}" for name, option in PAIRS])
def test_an_option_has_an_effect(
    command: str, option: str, folder: Path, done: list[Any], registry: dict[str, Any]
) -> None:
    given = {**GIVEN.get(command, {}), **BESIDE.get((command, option), {})}
    before = outcome(command, given, folder, done, registry)
    after = outcome(command, {**given, option: OTHER[command][option]}, folder, done, registry)
    if before == after:
        pytest.fail(f"--{option} of kn-attrib {command} changes nothing")


@pytest.mark.parametrize(("command", "option"), SETTINGS, ids=[f"{name} {option}" for name, option in SETTINGS])
def test_a_setting_does_what_the_option_does(
    command: str, option: str, folder: Path, done: list[Any], registry: dict[str, Any]
) -> None:
    given = {**GIVEN.get(command, {}), **BESIDE.get((command, option), {})}
    value = OTHER[command][option]
    typed = outcome(command, {**given, option: value}, folder, done, registry)
    written = yaml.safe_dump({option: value}).replace("FOLDER", str(folder))
    (folder / "settings.yaml").write_text(written)
    rest = {name: each for name, each in given.items() if name != option}
    read = outcome(command, {**rest, "config": "FOLDER/settings.yaml"}, folder, done, registry)
    if read != typed:
        pytest.fail(f"{option}: {read}\nnot: {typed}")
