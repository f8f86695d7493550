"""Settings of the command line from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import output, raise_from, run
from kn_attrib import Comparison
from kn_attrib.errors import ConfigError
from kn_attrib.store import read_json

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def config(tmp_path: Path, saved_bert: Path, facts_file: Path) -> Callable[..., Path]:
    """Writes a YAML file for a small comparison, with changes."""

    def write(**changes: Any) -> Path:
        settings = {"model": str(saved_bert), "facts": str(facts_file), "keep": ["unknown"], "methods": ["random"],
                    "budgets": [1, 2], "control-facts": 1, "out": str(tmp_path / "run")}  # fmt: skip
        path = tmp_path / "settings.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return path

    return write


def settings_of(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = read_json(folder / "manifest.json")["settings"]
    return settings


def test_config_values_are_used(config: Callable[..., Path], tmp_path: Path) -> None:
    output("compare", "--config", config(seed=7, methods=["random(seed=2)", "activation"]))
    used = settings_of(tmp_path / "run")
    assert (used["seed"], used["budgets"], used["keep"], used["control_facts"]) == (7, [1, 2], ["unknown"], 1)
    assert Comparison.load(tmp_path / "run").methods == ["random", "activation"]


def test_the_command_line_overrides_config(config: Callable[..., Path], tmp_path: Path) -> None:
    output("compare", "--seed", 9, "--config", config(seed=7), "--budgets", "4")
    assert (settings_of(tmp_path / "run")["seed"], settings_of(tmp_path / "run")["budgets"]) == (9, [4])


def test_an_unknown_config_key_shows_a_close_one(config: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"settings\.yaml: unknown setting 'limmit'\. Did you mean 'limit'\? Known: "):
        raise_from(run("compare", "--config", config(limmit=3)))


def test_a_config_value_of_the_wrong_kind_is_named(config: Callable[..., Path]) -> None:
    result = run("compare", "--config", config(limit="many"))
    assert result.exit_code == 2
    assert re.search("Invalid value for '--limit': .* integer", result.stderr)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("as_list", [True, False])
def test_config_may_name_one_plugin_or_several(config: Callable[..., Path], tmp_path: Path, as_list: bool) -> None:
    plugin = str(EXAMPLES / "weighted_activation.py")
    output("compare", "--config", config(plugin=[plugin] if as_list else plugin, methods=["weighted_activation"]))
    assert Comparison.load(tmp_path / "run").methods == ["weighted_activation"]


def test_config_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read --config .*nowhere\.yaml: .*No such file"):
        raise_from(run("compare", "--config", tmp_path / "nowhere.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match=r"cannot read --config .*bad\.yaml: while parsing"):
        raise_from(run("compare", "--config", tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match=r"bad\.yaml holds list; expected keys and values"):
        raise_from(run("score", "--config", tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: café".encode("latin-1"), "cannot read --config .*: 'utf-8' codec can't decode byte 0xe9"),
        (bytes(range(256)), "cannot read --config .*: 'utf-8' codec can't decode"),
        (b"[" * 20_000, "cannot read --config .*: nested too deep"),
        (b"limit: " + b"1" * 5000, r"cannot read --config .*: Exceeds the limit \(4300 digits\)"),
        (b"limit: 3\nlimit: 4\n", "cannot read --config .*: limit is given twice"),
        (b"methods:\n", "methods has no value; give one, or leave it out"),
    ],
    ids=["latin-1", "binary", "deep", "digits", "twice", "null"],
)
def test_config_files_of_all_kinds_are_answered(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        raise_from(run("compare", "--config", tmp_path / "bad.yaml"))


def test_settings_that_may_be_nothing_may_be_null(config: Callable[..., Path], tmp_path: Path) -> None:
    output("compare", "--config", config(threshold=None, methods=["random"]))
    assert settings_of(tmp_path / "run")["threshold"] is None
    assert Comparison.load(tmp_path / "run").methods == ["random"]
