"""What is installed: the two top-level folders inside kn_attrib, once, with their data."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("kn_attrib", "methods", "evaluation")
LINKS = {"methods": "../methods", "evaluation": "../evaluation"}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def packages_on_disk() -> set[str]:
    """Every folder with an ``__init__.py``, by the name it is imported under."""
    found = set()
    for folder in OURS:
        for init in (ROOT / folder).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            found.add(name if folder == "kn_attrib" else f"kn_attrib.{name}")
    return found


def test_setup_cfg_lists_every_package(setup_cfg: configparser.ConfigParser) -> None:
    assert set(setup_cfg["options"]["packages"].split()) == packages_on_disk()


def test_setup_cfg_maps_the_two_folders(setup_cfg: configparser.ConfigParser) -> None:
    rows = (line.split("=") for line in setup_cfg["options"]["package_dir"].strip().splitlines())
    expected = {"kn_attrib.methods": "methods", "kn_attrib.evaluation": "evaluation"}
    assert {name.strip(): folder.strip() for name, folder in rows} == expected


def test_links_are_relative_and_lead_to_the_folders() -> None:
    for name, target in LINKS.items():
        link = ROOT / "kn_attrib" / name
        assert link.is_symlink()
        assert str(link.readlink()) == target
        assert link.resolve() == ROOT / name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that nothing left over in the working tree can get in."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for name in OURS:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "setup.cfg", ROOT / "pyproject.toml", *ROOT.glob("README*"), *ROOT.glob("LICENSE*")):
        shutil.copy(file, source)
    run(["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents installed by pip."""
    target = tmp_path_factory.mktemp("installed")
    run(
        [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-compile",
            "--target",
            str(target),
            str(wheel),
        ]
    )
    return target


def run(arguments: list[str], cwd: Path | None = None, path: list[Path] | None = None) -> str:
    """Run Python and return what it prints; whatever it says when it fails is the test's message."""
    # Where there is no network none is tried: neither pip nor a build asks for anything.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path or [])),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_every_file_once_under_kn_attrib(wheel: Path) -> None:
    names = names_in(wheel)
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"kn_attrib"}


def test_wheel_holds_all_sources_and_data(wheel: Path) -> None:
    expected = {"kn_attrib/py.typed"}
    for pattern in (
        "kn_attrib/**/*.py",
        "methods/**/*.py",
        "evaluation/**/*.py",
        "evaluation/records/templates/*",
        "evaluation/planted/shipped/*",
        "kn_attrib/data/world/*.json",
        "kn_attrib/zoo/models/*/*",
    ):
        found = {str(p.relative_to(ROOT)) for p in ROOT.glob(pattern) if p.is_file()}
        assert found, f"nothing matches {pattern}"
        expected |= {name if name.startswith("kn_attrib/") else f"kn_attrib/{name}" for name in found}
    assert expected - set(names_in(wheel)) == set()


def test_installed_package_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    code = """
import kn_attrib, kn_attrib.methods, kn_attrib.evaluation
from kn_attrib.evaluation.records.pages import environment
from kn_attrib.models.shipped import zoo_names
for module in (kn_attrib, kn_attrib.methods, kn_attrib.evaluation):
    print(module.__file__)
print(",".join(kn_attrib.list_methods()))
print(len(kn_attrib.load_facts("world")), environment().get_template("report.html").filename)
print(",".join(zoo_names()))
"""
    *files, methods, data, zoo = run(["-c", code], cwd=tmp_path, path=[installed]).splitlines()
    assert len(files) == 3
    assert all(file.startswith(str(installed)) for file in files)
    assert {"integrated_gradients", "random"} <= set(methods.split(","))
    n_facts, template = data.split()
    assert int(n_facts) >= 1200
    assert template.startswith(str(installed))
    assert zoo


def other_package(folder: Path, code: str) -> Path:
    """A package of somebody else with a method of its own, as pip would install it."""
    (folder / "their_scorer.py").write_text(code)
    info = folder / "their_scorer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-scorer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kn_attrib.methods]\ntheirs = their_scorer\n")
    return folder


THEIRS = """
from dataclasses import dataclass
import kn_attrib

@kn_attrib.register("theirs")
@dataclass(frozen=True)
class Theirs(kn_attrib.Scorer):
    def score(self, model, batch):
        return model.record(batch)
"""


def test_methods_of_other_packages_are_found(installed: Path, tmp_path: Path) -> None:
    found = run(
        ["-c", "import kn_attrib; print(kn_attrib.list_methods(), kn_attrib.get_method('theirs').__module__)"],
        cwd=tmp_path,
        path=[installed, other_package(tmp_path, THEIRS)],
    )
    assert "'theirs'" in found
    assert "'random'" in found
    assert found.split()[-1] == "their_scorer"


def test_a_package_that_fails_is_named(installed: Path, tmp_path: Path) -> None:
    code = "import kn_attrib\ntry:\n    kn_attrib.list_methods()\nexcept kn_attrib.KnAttribError as e:\n    print(e)"
    said = run(["-c", code], cwd=tmp_path, path=[installed, other_package(tmp_path, "1 / 0")])
    assert said == "method 'theirs' of package 'their_scorer' failed to load: division by zero\n"
