"""constraints-minimal.txt, with which `make minimal` runs tests, holds the lower bounds of setup.cfg."""

from __future__ import annotations

import configparser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def test_minimal_versions_are_the_lower_bounds() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    bounds = {}
    for line in parser["options"]["install_requires"].strip().splitlines():
        requirement = Requirement(line)
        (bounds[requirement.name],) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
    pinned = {}
    for line in (ROOT / "constraints-minimal.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            pinned[name] = Version(version)
    assert pinned == bounds
