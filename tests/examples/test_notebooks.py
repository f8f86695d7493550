"""Every notebook runs from top to bottom, and shows what its text speaks of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

jupytext: Any = pytest.importorskip("jupytext")
nbclient: Any = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
SIGNED = r"(?:[−+][\d.]+|0\.0)"  # what rounds to zero has no sign
CHANGE = rf"{SIGNED} %\s*\[{SIGNED}, {SIGNED}\]"
"""A mean and its interval, as tables write them."""


class Shown:
    """What an executed notebook shows: plain text with everything printed, and HTML."""

    def __init__(self, notebook: Any) -> None:
        self.outputs = list(outputs_of(notebook))
        data = [output.data for output in self.outputs if "data" in output]
        printed = [output.text for output in self.outputs if output.output_type == "stream"]
        self.text = "\n".join([*printed, *(each.get("text/plain", "") for each in data)])
        html = "\n".join(each.get("text/html", "") for each in data)
        self.html = re.sub(r"</?(br|small)\b[^>]*>", "", html)  # how a cell is set is of no interest here

    @property
    def complaints(self) -> list[str]:
        """Errors, and what was written to stderr."""
        streams = [o for o in self.outputs if o.output_type == "stream" and o.name == "stderr"]
        errors = [o for o in self.outputs if o.output_type == "error"]
        return [*(o.text for o in streams), *(f"{o.ename}: {o.evalue}" for o in errors)]

    def number(self, pattern: str) -> float:
        """The number in the group of a pattern that the text must match."""
        found = re.search(pattern, self.text)
        assert found, f"{pattern!r} is not in {self.text!r}"
        return float(found[1])


def outputs_of(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def quickstart(shown: Shown) -> None:
    assert "Fact capital:France</caption>" in shown.html
    assert "integrated_gradients on capital:France" in shown.html
    assert re.search(r"\d+ neurons? in \d+ layers?</caption>", shown.html)
    assert shown.number(r"\nthis fact +(-?[\d.]+)") < -20
    assert abs(shown.number(r"this fact, random neurons +(-?[\d.]+)")) < 5
    assert shown.number(r"landmark_city:Louvre +(-?[\d.]+)") < -20


def compared(shown: Shown) -> None:
    assert "Silencing all feed-forward neurons at the answer position changes p(answer) by −" in shown.html
    for method in ("integrated_gradients", "gradient_x_activation", "activation", "random"):
        rows = re.findall(rf"<th[^>]*>{method}</th>\s*<td>[\d.]+</td>\s*<td>\d+</td>\s*<td>({CHANGE})</td>", shown.html)
        assert len(rows) == 2, "one row of refined neurons, one of ten"
        assert method == "random" or all(row.startswith("−") for row in rows), "suppression lowers p(answer)"
    assert "Does the attribution method matter?" in shown.text
    assert "'report.html', 'rows.parquet'" in shown.text


def own_scorer(shown: Shown) -> None:
    assert "loud_neurons on capital:France" in shown.html
    for method in ("loud_neurons", "gradient_x_activation", "random"):
        assert re.search(rf"<th>{method}</th>\s*<td>10.0</td>\s*<td>0</td>\s*<td>{CHANGE}</td>", shown.html)
    for other in ("random", "gradient_x_activation"):
        assert re.search(rf"loud_neurons is (stronger than|weaker than|not told from) {other} at ten", shown.text)


def planted(shown: Shown) -> None:
    assert shown.number(r"p\(answer\) before +([\d.]+)") < 0.1 < shown.number(r"p\(answer\) with the plant +([\d.]+)")
    assert shown.number(r"contrastive_joint_ig +(\d+) +NeuronSet") == 2
    for method in ("contrastive_joint_ig", "gradient_x_activation", "activation", "random"):
        assert f"<th>{method}</th>" in shown.html
    assert re.search(r"<th>overall</th>\s*<td>0\.9\d \[", shown.html)


def from_peer(shown: Shown) -> None:
    assert shown.number(r"eleuther +([\d.]+)") > shown.number(r"default +([\d.]+)")
    if "skipped: knowledge-neurons is not installed" in shown.text:
        assert "theirs" not in shown.html
        return
    distances = [float(each) for each in re.findall(r"\[MASK\]\. +([\d.e+-]+)", shown.text)]
    assert len(distances) >= 3
    assert max(distances[:3]) < 1e-4
    assert "after, theirs" in shown.html


CHECKS: dict[str, Callable[[Shown], None]] = {
    "quickstart_one_fact": quickstart,
    "methods_compared": compared,
    "own_scorer": own_scorer,
    "planted_facts": planted,
    "from_knowledge_neurons": from_peer,
}


def test_every_notebook_is_checked() -> None:
    assert {notebook.stem for notebook in NOTEBOOKS} == set(CHECKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_asserts_what_it_claims(path: Path) -> None:
    cells = jupytext.read(path).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert any(re.search(r"^ *assert ", cell.source, re.MULTILINE) for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = jupytext.read(path)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    shown = Shown(notebook)
    assert shown.complaints == []
    CHECKS[path.stem](shown)
    assert list(tmp_path.iterdir()) == [], "a notebook leaves nothing behind where it is run"


def test_complaints_are_found() -> None:
    notebook = jupytext.reads("# %%\nimport sys\nprint('so', file=sys.stderr)\n# %%\n1 / 0\n", fmt="py:percent")
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True).execute()
    assert Shown(notebook).complaints == ["so\n", "ZeroDivisionError: division by zero"]
