"""Every Python block of the README runs, and its names are the package's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kn_attrib

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


def test_public_names_exist() -> None:
    for name in kn_attrib.__all__:
        assert getattr(kn_attrib, name) is not None
