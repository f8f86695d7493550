"""The site builds without a warning, and every page and public name is in it."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import kn_attrib
import kn_attrib.evaluation

DOCS = Path(__file__).resolve().parents[2] / "docs"
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.S)


def listed(page: Path) -> list[Path]:
    """The pages that a page's tables of contents name, as files."""
    entries = [
        line for table in TOCTREE.findall(page.read_text(encoding="utf-8")) for line in table.split() if line[0] != ":"
    ]
    return [file for entry in entries for file in DOCS.glob(f"{entry}.*") if file.suffix in (".md", ".rst")]


def test_every_page_is_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += listed(page)
    written = {*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")}
    assert written - reached == set()
    assert len(reached) > 15


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as HTML, made in a process of its own: Sphinx changes the settings of the one it runs in."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason="the site is made with the extra 'docs', which is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html", "-d", f"{out}/trees"]
    done = subprocess.run([*command, str(DOCS), f"{out}/html"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_the_site_is_built_without_warnings(site: Path) -> None:
    for page in (*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists()


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loading = r"""<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"|<link[^>]+rel="stylesheet"[^>]+href="(https?:[^"]+)"""
    found = {match for page in site.rglob("*.html") for match in re.findall(loading, page.read_text(encoding="utf-8"))}
    assert found == set()


def test_every_public_name_has_an_entry(site: Path) -> None:
    _, _, _, _, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    entries = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    for package in (kn_attrib.evaluation, kn_attrib):
        for name in package.__all__:
            assert f"{package.__name__}.{name}" in entries | {"kn_attrib.compare", "kn_attrib.Comparison"}


MAIN = ("index", "getting-started", "architecture", "methods", "evaluation", "leaderboard", "api/kn_attrib", "search")


@pytest.mark.parametrize("page", MAIN)
def test_axe_finds_nothing(site: Path, axe: Callable[..., list[str]], page: str) -> None:
    for scheme, width in (("light", 1280), ("dark", 400)):
        assert axe(site / f"{page}.html", scheme, width) == []
