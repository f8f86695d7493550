"""Who may import whom, room by room: the contracts in setup.cfg hold, and each fails when it is broken on purpose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("kn_attrib", "methods", "evaluation")
PACKAGE, EVALUATION, CIRCLES = "The package: ", "The evaluation: ", "No circles"
MODEL = "from kn_attrib.models.neuron_model import NeuronModel"

BROKEN = [
    # file, an import that its room may not have, the contract that says so
    ("kn_attrib/errors.py", "from kn_attrib.store import read_json", PACKAGE),
    ("kn_attrib/store.py", "from kn_attrib.neurons import Neuron", PACKAGE),
    ("kn_attrib/neurons.py", "from kn_attrib.facts.facts import Fact", PACKAGE),
    ("kn_attrib/randomness.py", "from kn_attrib.neurons import Neuron", PACKAGE),
    ("kn_attrib/facts/prompts.py", MODEL, PACKAGE),
    ("kn_attrib/models/answers.py", "from kn_attrib.forward.rows import Rows", PACKAGE),
    ("kn_attrib/forward/rows.py", "from kn_attrib.interventions.masks import masked_logprob", PACKAGE),
    ("kn_attrib/interventions/masks.py", "from kn_attrib.techniques.quadrature import quadrature", PACKAGE),
    ("kn_attrib/techniques/deciles.py", "from kn_attrib.units.heads import Heads", PACKAGE),
    ("kn_attrib/units/view.py", "from kn_attrib.techniques.deciles import deciles", PACKAGE),
    ("kn_attrib/scoring/scorer.py", "from kn_attrib.methods.random import Random", PACKAGE),
    ("kn_attrib/scoring/refinement.py", "from kn_attrib.editing.edit import Edit", PACKAGE),
    ("kn_attrib/editing/edit.py", "from kn_attrib.methods.random import Random", PACKAGE),
    ("kn_attrib/scoring/refinement.py", "from kn_attrib.evaluation.vocabulary import GROUPS", PACKAGE),
    ("methods/random.py", "from kn_attrib.evaluation.vocabulary import GROUPS", PACKAGE),
    ("kn_attrib/zoo/recipes.py", "from kn_attrib.methods.random import Random", PACKAGE),
    ("evaluation/vocabulary.py", "from kn_attrib.methods.random import Random", PACKAGE),
    ("evaluation/records/text.py", "from kn_attrib.cli.screen import show", PACKAGE),
    ("evaluation/vocabulary.py", "from kn_attrib.evaluation.statistics.means import summarise", EVALUATION),
    ("evaluation/statistics/means.py", "from kn_attrib.evaluation.records.text import markdown", EVALUATION),
    ("evaluation/records/text.py", "from kn_attrib.evaluation.measure.metrics import effect", EVALUATION),
    ("evaluation/measure/metrics.py", "from kn_attrib.evaluation.experiment import Experiment", EVALUATION),
    ("evaluation/report/figures.py", "from kn_attrib.evaluation.comparison.compare import compare", EVALUATION),
    ("evaluation/experiment.py", "from kn_attrib.evaluation.report.figures import bars", EVALUATION),
    ("evaluation/planted/axes.py", "from kn_attrib.evaluation.protocols.rankings import recall", EVALUATION),
    ("evaluation/firing/holes.py", "from kn_attrib.evaluation.protocols.rankings import recall", EVALUATION),
    ("evaluation/reading/lens.py", "from kn_attrib.evaluation.protocols.rankings import recall", EVALUATION),
    ("evaluation/protocols/rankings.py", "from kn_attrib.evaluation.comparison.settings import Settings", EVALUATION),
    ("evaluation/comparison/settings.py", "from kn_attrib.evaluation.planted.recipe import Recipe", EVALUATION),
    ("evaluation/tracing/roles.py", "from kn_attrib.evaluation.protocols.rankings import recall", EVALUATION),
    ("kn_attrib/models/compute.py", MODEL, CIRCLES),
    ("evaluation/report/leaderboard.py", "from kn_attrib.evaluation.report.comparison import Comparison", CIRCLES),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-logo", "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three folders' Python files with their links, and the contracts."""
    folder = tmp_path_factory.mktemp("house")
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", "data", "*.safetensors", "*.json")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    shutil.copy(ROOT / "setup.cfg", folder)
    return folder


def test_all_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(("file", "line", "contract"), BROKEN, ids=[f"{file}: {line}" for file, line, _ in BROKEN])
def test_a_contract_fails_when_it_is_broken(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        done = lint(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert done.returncode == 1, done.stdout
    broken = [verdict for verdict in done.stdout.splitlines() if verdict.endswith(" BROKEN")]
    assert any(verdict.startswith(contract) for verdict in broken), done.stdout


def test_a_room_without_a_place_is_found(copy: Path) -> None:
    new = copy / "evaluation" / "attic"
    new.mkdir()
    try:
        (new / "__init__.py").write_text('"""Nobody knows what belongs here."""\n')
        done = lint(copy)
    finally:
        shutil.rmtree(new)
    assert done.returncode == 1
    assert "attic" in done.stdout


def rooms() -> list[Path]:
    """Every folder of code with an ``__init__.py``, each once."""
    found = [init for name in FOLDERS for init in (ROOT / name).rglob("__init__.py")]
    return sorted(init for init in found if not any(folder.is_symlink() for folder in init.parents))


def test_every_room_has_rules_that_are_tried() -> None:
    tried = {Path(file).parent.as_posix() for file, _, _ in BROKEN}
    # The command line sees all; the three folders' own `__init__` only hand out names.
    free = {"kn_attrib/cli", "evaluation", "kn_attrib"}
    assert {room.parent.relative_to(ROOT).as_posix() for room in rooms()} - free <= tried


@pytest.mark.parametrize("init", rooms(), ids=lambda init: init.parent.relative_to(ROOT).as_posix())
def test_every_room_says_what_belongs_there(init: Path) -> None:
    relative = init.parent.relative_to(ROOT)
    text = init.read_text(encoding="utf-8")
    assert text.startswith('"""')
    if len(relative.parts) == 2 and relative.name not in ("cli", "zoo"):
        assert "\nHere: " in text
        assert "Not here: " in text or "Nothing here " in text
