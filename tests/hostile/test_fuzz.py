"""Whatever a file or a text holds, a reader returns what it promises or says what is wrong (see `fuzzing`)."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import answered, changed, encoded, files, fuzz, texts, trees
from kn_attrib import Fact, FactSet, NeuronSet, Scorer, load_facts
from kn_attrib.cli import app
from kn_attrib.cli.compare import _factor
from kn_attrib.cli.config import read_config
from kn_attrib.errors import ConfigError, FactError, MethodError, NeuronError
from kn_attrib.evaluation.comparison.grid import Factor
from kn_attrib.scoring.method_specs import Method, make_method, make_units
from kn_attrib.units.view import Units

FIELDS = "id relation subject answer prompts held_out alternatives triples description".split()  # noqa: SIM905
records = st.dictionaries(st.sampled_from(FIELDS), st.lists(texts, max_size=3) | texts | trees, max_size=8)


def check_facts(found: FactSet | None) -> None:
    if found is None:
        return
    assert isinstance(found, FactSet)
    for fact in found:
        assert isinstance(fact, Fact)
        assert all(isinstance(getattr(fact, name), str) for name in ("id", "relation", "subject", "answer"))
        assert all(isinstance(text, str) for text in (*fact.prompts, *fact.held_out, *fact.alternatives))
        assert all(text.count("[Y]") == 1 for text in (*fact.prompts, *fact.held_out))
        fact.id.encode()


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_facts(saved: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"facts.{suffix}"
    lines = (saved / "facts.jsonl").read_bytes()
    templates = {
        "relation": "capital",
        "prompts": ["the capital of [X] is [Y]."],
        "held_out": ["[X] capital is [Y]."],
        "triples": [["France", "Paris"], ["Italy", "Rome", "Roma"]],
    }
    valid = lines if suffix == "jsonl" else encoded(templates)

    @fuzz
    @given(files(valid, json.loads(lines.split(b"\n")[0]), templates) | records.map(encoded))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        check_facts(answered(f"facts.{suffix}", lambda: load_facts(path), FactError))

    read()


CONFIG = {"model": "zoo:bert-facts", "methods": ["random", "activation"], "limit": 3, "threshold": 0.2,
          "budgets": [1, 5], "curves": True, "grid": {"factor": [1, 2]}, "plugin": [], "out": "runs/x"}  # fmt: skip
yamls = st.sampled_from(["!!int", "!!bool", "!!timestamp", "!!map", "!!set", "&a", "*a", "- ", "? ", ": ", "<<: ", "{",
                         "}", "[", "]", "limit", "methods", "grid", "'", '"', "\n", " ", "|", "0x", "1:2", ".inf",
                         "2020-01-01", "!!binary", "!!omap", "!!pairs", "~", "---", "%YAML", "#", ","])  # fmt: skip


def test_configs(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    command: Any = typer.main.get_command(app)
    command = command.commands["compare"]
    trees_of_settings = st.dictionaries(st.sampled_from([*CONFIG, "seed", "keep", "share", "x"]), trees, max_size=4)
    as_yaml = (trees_of_settings | changed(CONFIG)).map(lambda tree: yaml.safe_dump(tree).encode())
    as_text = st.lists(yamls, max_size=12).map(lambda parts: "".join(parts).encode())

    @fuzz
    @given(files(yaml.safe_dump(CONFIG).encode(), CONFIG) | as_yaml | as_text)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        context = typer.Context(command)
        if answered("config", lambda: read_config(context, path), ConfigError) is not None:
            values = [
                v for found in (context.default_map or {}).values() for v in (found if type(found) is list else [found])
            ]
            assert {type(value) for value in values} <= {str, int, float, bool, type(None)}

    read()


pieces = st.sampled_from([*"()[]{},:@=*-.'\"# ", "random", "activation", "integrated_gradients", "dai2022", "nmf",
                          "pca", "heads", "k", "steps", "seed", "True", "None", "1", "8", "1e3", "nan", "lambda: 0",
                          "\x00", "\n", "é", "\ud800", "9" * 30, "b''", "not "])  # fmt: skip
specs = st.lists(pieces, max_size=10).map("".join) | st.text(string.printable, max_size=20) | st.text(max_size=12)


def test_methods() -> None:
    @fuzz
    @given(specs | specs.map(lambda inner: f"random({inner})") | specs.map(lambda inner: f"activation@pca({inner})"))
    def read(text: str) -> None:
        found = answered("methods", lambda: make_method(text), MethodError)
        assert found is None or (isinstance(found, Method) and isinstance(found.scorer, Scorer))

    read()


def test_units() -> None:
    @fuzz
    @given(specs | specs.map(lambda inner: f"nmf({inner})"))
    def read(text: str) -> None:
        assert isinstance(answered("units", lambda: make_units(text), MethodError), Units | None)

    read()


def test_grids() -> None:
    @fuzz
    @given(
        specs
        | st.lists(yamls | pieces, max_size=5).map(lambda parts: "factor=" + "".join(parts))
        | specs.map("a.b={}".format)
    )
    def read(text: str) -> None:
        found = answered("grid", lambda: _factor(text), ConfigError)
        assert found is None or (isinstance(found, Factor) and not any("/" in str(level) for level in found.levels))

    read()


def test_neuron_sets(saved: Path, tmp_path: Path) -> None:
    valid = (saved / "neurons.json").read_bytes()
    path = tmp_path / "neurons.json"

    @fuzz
    @given(files(valid, json.loads(valid)) | trees.map(lambda tree: encoded({"neurons": tree})))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = answered("NeuronSet", lambda: NeuronSet.load(path), NeuronError)
        assert all(type(n) is int and n >= 0 for neuron in found or () for n in neuron)

    read()
