"""Draws the diagram of architecture.md, which code hosts render and Sphinx does not: `python docs/diagram.py`.

The drawing is kept (figures/rooms.svg), so that the site needs neither Graphviz, which lays it out here, nor a script.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parent
DRAWING = DOCS / "figures" / "rooms.svg"
BLOCK = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
STYLE = 'node [shape=box, fontname="sans-serif", fontsize=11, height=0.3]; edge [arrowsize=0.6]; bgcolor="transparent"'

WORDS = "Rooms and arrows; the contracts in setup.cfg say them in words."


def dot_of(diagram: str) -> str:
    """A flowchart of mermaid's as a graph of Graphviz's: names in brackets, and arrows."""
    nodes = "\n".join(f'{name} [label="{label}"]' for name, label in re.findall(r"(\w+)\[([^\]]+)\]", diagram))
    arrows = "\n".join(f"{a} -> {b}" for a, b in re.findall(r"(\w+) --> (\w+)", re.sub(r"\[[^\]]+\]", "", diagram)))
    return f"digraph {{ {STYLE}\n{nodes}\n{arrows}\n}}"


def draw() -> None:
    """Write the drawing, in the colour of the text around it."""
    (diagram,) = BLOCK.findall((DOCS / "architecture.md").read_text(encoding="utf-8"))
    done = subprocess.run(["dot", "-Tsvg"], input=dot_of(diagram), capture_output=True, text=True, check=True)
    svg = re.sub(r"<!--.*?-->\n?", "", done.stdout[done.stdout.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{WORDS}" ')
    svg = svg.replace('"black"', '"currentColor"').replace("<text ", '<text fill="currentColor" ')
    DRAWING.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    draw()
