"""Every Python block of the README runs, and its names are the package's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import kn_attrib
from kn_attrib.cli import app
from kn_attrib.models.architectures import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def test_python_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec", dont_inherit=True), names)
    out = capsys.readouterr().out
    assert "NeuronSet" in out
    assert "integrated_gradients" in out
    assert (tmp_path / "runs" / "report.html").exists()
    assert "weighted_activation" in kn_attrib.list_methods()


def test_what_is_to_be_cited_is_what_the_citation_file_says() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"```bibtex\n(.*?)```", readme, flags=re.DOTALL)
    plain = re.sub(r"[{}\\]", "", entry)
    assert f"title   = {said['title']},\n" in plain
    assert f"author  = {said['authors'][0]['name']},\n" in plain
    assert f"version = {said['version']},\n" in plain
    assert f"license = {said['license']},\n" in plain


def test_public_names_exist() -> None:
    for name in kn_attrib.__all__:
        assert getattr(kn_attrib, name) is not None


def test_the_readme_names_every_method_and_counts_the_types() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| family | methods |") :].split("\n\n")[0]
    named = {name.split("(")[0] for name in re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", table))}
    own = {name for name in kn_attrib.list_methods() if kn_attrib.get_method(name).__module__.startswith("kn_attrib.")}
    assert named == own
    assert f"[{len(ARCHITECTURES)} types]" in readme


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    groups = {group.name for group in app.registered_groups}
    assert set(re.findall(r"\| `kn-attrib (\w+)` \|", readme)) == {c.name for c in app.registered_commands} | groups
