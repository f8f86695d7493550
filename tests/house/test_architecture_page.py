"""The map of the house is the house: its arrows are the imports', its files exist, and its recipes run."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import typer
from typer.testing import CliRunner

from kn_attrib import (
    Edit,
    FactSet,
    NeuronModel,
    Scorer,
    get_method,
    list_editors,
    make_editor,
    score,
    suppress,
)
from kn_attrib.editing.registry import _EDITORS
from kn_attrib.errors import NeuronError
from kn_attrib.models.neuron_model import all_neurons

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"
ROOT_FILES = ("errors", "store", "display", "neurons", "randomness")
FREE = ("__init__", "__main__", "_version")
"""Files that only hand out names, start the command line, or hold a number."""


def modules() -> dict[str, Path]:
    """Every module by its full name."""
    found = {}
    for folder, prefix in (("kn_attrib", ""), ("methods", "kn_attrib."), ("evaluation", "kn_attrib.")):
        for file in (ROOT / folder).rglob("*.py"):
            if not any(parent.is_symlink() for parent in file.parents):
                parts = [p for p in file.relative_to(ROOT).with_suffix("").parts if p != "__init__"]
                found[prefix + ".".join(parts)] = file
    return found


def room_of(module: str) -> str:
    """The room of a module as the diagram calls it; empty where it has none."""
    _, *parts = module.split(".")
    if parts[:1] == ["methods"]:
        return "methods"
    if parts[:1] == ["evaluation"]:
        alone = len(parts) == 2 and (ROOT / "evaluation" / f"{parts[1]}.py").exists()
        return f"evaluation/{parts[1]}{'.py' * alone}" if len(parts) > 1 else ""
    if not parts or parts[0] in FREE:
        return ""
    return ", ".join(ROOT_FILES) if parts[0] in ROOT_FILES else f"kn_attrib/{parts[0]}"


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else str(node.module))
    return found


def arrows() -> set[tuple[str, str]]:
    """Which room imports from which, without what follows from other arrows."""
    known = modules()
    direct: dict[str, set[str]] = defaultdict(set)
    for module, file in known.items():
        direct[room_of(module)] |= {room_of(other) for other in imported(file, known)} - {room_of(module), ""}
    direct.pop("")

    def reached(room: str) -> set[str]:
        return direct[room].union(*(reached(other) for other in direct[room]))

    return {
        (room, other)
        for room in list(direct)
        for other in direct[room]
        if not any(other in reached(between) for between in direct[room] - {other})
    }


def drawn() -> set[tuple[str, str]]:
    """The diagram's arrows."""
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", PAGE, flags=re.DOTALL)
    names = dict(re.findall(r"(\w+)\[([^\]]+)\]", diagram))
    bare = re.sub(r"\[[^\]]+\]", "", diagram)
    return {(names[a], names[b]) for a, b in re.findall(r"(\w+) --> (\w+)", bare)}


def test_the_diagram_is_the_code() -> None:
    missing, too_many = arrows() - drawn(), drawn() - arrows()
    assert not missing | too_many, f"the diagram lacks {sorted(missing)} and has {sorted(too_many)} too many"


def test_the_drawing_is_the_diagram() -> None:
    svg = ElementTree.parse(ROOT / "docs" / "figures" / "rooms.svg")
    labels, edges = {}, set()
    for group in svg.iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title", "")
        if group.get("class") == "node":
            labels[title] = group.findtext(f"{SVG}text", "")
        elif group.get("class") == "edge":
            edges.add(tuple(title.split("->")))
    assert {(labels[a], labels[b]) for a, b in edges} == drawn(), "draw it anew: python docs/diagram.py"


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"@[A-Z]+@", PAGE) == []


def longest_chain() -> int:
    """Files in the longest chain of imports."""
    known = modules()
    direct = {module: imported(file, known) - {module} for module, file in known.items()}

    @cache
    def length(module: str) -> int:
        return 1 + max((length(other) for other in direct[module]), default=0)

    return max(map(length, known))


def test_the_house_has_not_become_worse(tiny: NeuronModel) -> None:
    cells = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", PAGE, flags=re.MULTILINE))
    for folder in ("kn_attrib", "evaluation"):
        assert len(list((ROOT / folder).glob("*.py"))) <= int(cells[f"files in `{folder}/` itself"])
    members = [name for name in dir(tiny) if not name.startswith("_")]
    assert len(members) <= int(cells["public members of `NeuronModel`"])
    # A new experiment or technique may make the longest chain a little longer.
    assert longest_chain() <= int(cells["longest chain of imports, in files"]) + 3


def test_every_room_is_in_the_table() -> None:
    rooms = {room for arrow in arrows() for room in arrow} - {", ".join(ROOT_FILES)}
    for room in rooms:
        name = room if room.endswith(".py") else f"{room}/"
        assert f"| `{name}` |" in PAGE, f"the table of rooms lacks {name}"


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:kn_attrib|methods|evaluation|tests|docs)/[\w/]+\.\w+)", PAGE)) - {
        "methods/NAME.py",
        "kn_attrib/cli/NAME.py",
    }
    short = set(re.findall(r"`((?:facts|models|forward|interventions|techniques|scoring|statistics)/[\w/]+\.py)", PAGE))
    named -= {"kn_attrib/units/NAME.py", "kn_attrib/editing/NAME.py"}
    assert len(named) > 15
    assert len(short) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
    places = [ROOT / "kn_attrib", ROOT / "evaluation"]
    assert [name for name in short if not any((place / name).exists() for place in places)] == []


@pytest.fixture
def recipes(registry: dict[str, type[Scorer]]) -> Iterator[dict[str, Any]]:
    """What the recipes' code defines."""
    registry.pop("squared_activation", None)  # somebody may have carried the recipe out
    list_editors()
    editors = dict(_EDITORS)
    names: dict[str, Any] = {"__name__": "recipes"}
    module = sys.modules["recipes"] = ModuleType("recipes")  # dataclasses look a class's module up
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "architecture.md", "exec", dont_inherit=True), names)
    vars(module).update(names)
    yield names
    del sys.modules["recipes"]
    _EDITORS.clear()
    _EDITORS.update(editors)


def test_the_scorer_of_the_recipe_scores(recipes: dict[str, Any], tiny: NeuronModel, facts: FactSet) -> None:
    found, activation = (score(tiny, facts[0], method).values for method in ("squared_activation", "activation"))
    torch.testing.assert_close(found, activation**2)
    assert get_method("squared_activation").reference
    assert get_method("squared_activation").summary()


def test_the_units_of_the_recipe_are_units(recipes: dict[str, Any], tiny: NeuronModel, facts: FactSet) -> None:
    view = recipes["Signs"]().views(tiny, tiny.encode(facts).prompts)["capital"]
    _, batch = next(iter(tiny.batches(tiny.encode(facts[0]).prompts)))
    coefficients, _ = view.units(batch)
    vectors = torch.einsum("plu,plun->pln", coefficients, view.directions(batch))
    torch.testing.assert_close(vectors, tiny.record(batch))
    with suppress(view, all_neurons(view)):
        silent = tiny.answers(batch).logprob
    with suppress(tiny, all_neurons(tiny)):
        torch.testing.assert_close(silent, tiny.answers(batch).logprob)


def test_the_editor_of_the_recipe_edits(recipes: dict[str, Any], tiny: NeuronModel, facts: FactSet) -> None:
    digest = tiny.digest
    with make_editor("forget(method='activation', k=3)").apply(tiny, Edit(facts[0], "Rome")):
        gone = [int((tiny.value_vectors(layer) == 0).all(-1).sum()) for layer in range(tiny.n_layers)]
        assert sum(gone) == 3
    assert tiny.digest == digest


def test_the_experiment_of_the_recipe_runs(
    recipes: dict[str, Any], tiny: NeuronModel, facts: FactSet, tmp_path: Path
) -> None:
    settings = recipes["StabilitySettings"](known_share=0.0, k=5)
    run = recipes["Stability"](tiny, facts, ["activation", "random"], settings, tmp_path, progress=False)
    found = run.run()
    assert found.rows.value.between(0, 1).all()
    assert found.rows.groupby("method").size().to_dict() == {"activation": len(facts), "random": len(facts)}
    with pytest.raises(NeuronError, match="k is 1000; expected 1 to 144"):
        recipes["Stability"](tiny, facts, ["random"], recipes["StabilitySettings"](k=1000))
    again = recipes["StabilityResult"].load(tmp_path)
    assert again.text_table("metric").index.tolist() == ["activation", "random"]


def test_the_command_of_the_recipe_runs(recipes: dict[str, Any], tmp_path: Path) -> None:
    app = typer.Typer(rich_markup_mode=None)
    recipes["add"](app)
    app.command("other")(lambda: None)  # one command alone would have no name
    out = tmp_path / "run"
    given = ["stability", "--methods", "activation", "--limit", "2", "--max-prompts", "2", "--out", str(out)]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0
    assert "jaccard" in done.output
    assert "Overlap (Jaccard)" in (out / "report.html").read_text(encoding="utf-8")
