"""Checks the installed wheel from outside the repository; `.ci/wheels` runs it in fresh environments."""

from __future__ import annotations

import sysconfig
from importlib.metadata import files
from pathlib import Path

import kn_attrib
import kn_attrib.evaluation
import kn_attrib.methods
from kn_attrib.evaluation.records.pages import environment
from kn_attrib.models.shipped import zoo_names

NEEDED = ("py.typed", "data/world/", "zoo/models/", "evaluation/planted/shipped/", "evaluation/records/templates/")

site = Path(sysconfig.get_path("purelib"))
for module in (kn_attrib, kn_attrib.methods, kn_attrib.evaluation):
    if site not in Path(str(module.__file__)).parents:
        raise SystemExit(f"{module.__name__} is {module.__file__}; expected the one in {site}.")
installed = [str(file) for file in files("kn_attrib") or ()]
missing = [name for name in NEEDED if not any(file.startswith(f"kn_attrib/{name}") for file in installed)]
foreign = [file for file in installed if not file.startswith(("kn_attrib/", "kn_attrib-", "../../../bin/kn-attrib"))]
tests = [file for file in installed if "test" in Path(file).name or "tests" in Path(file).parts]
if missing or foreign or tests:
    raise SystemExit(f"missing in the wheel: {missing}; elsewhere: {foreign}; tests: {tests}.")
print(
    f"kn_attrib {kn_attrib.__version__}: {len(installed)} files, {len(kn_attrib.list_methods())} methods, "
    f"{len(kn_attrib.load_facts('world'))} facts, models {', '.join(zoo_names())}, "
    f"{len(environment().list_templates())} templates"
)
