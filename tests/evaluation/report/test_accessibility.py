"""The pages can be read by everybody: headings, captions, labels, contrast, paper; read from the rendered HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from kn_attrib import FactSet, NeuronModel, compare
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.comparison.grid import Factor, compare_grid
from kn_attrib.evaluation.protocols.injection import InjectionProtocol, InjectionSettings
from kn_attrib.evaluation.records.pages import CaptionedFigure, environment, write_page
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.evaluation.report.page import DRILLED, drill_down

VOID = {"br", "hr", "img", "input", "link", "meta", "path", "rect", "use"}


class Page(HTMLParser):
    """Elements in order, each with its attributes, the names of those around it, and the text in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "attrs": dict(attrs), "inside": [e["tag"] for e in self._open], "text": "", "of": []}
        for outer in self._open:
            outer["of"].append(element)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        while self._open and tag not in VOID and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for outer in self._open:
            outer["text"] += data

    def all(self, *tags: str) -> list[dict[str, Any]]:
        return [e for e in self.elements if e["tag"] in tags]


@pytest.fixture(scope="module")
def comparison(session_load_tiny: Callable[..., NeuronModel], module_facts: FactSet) -> Comparison:
    return compare(
        session_load_tiny("masked", "float32"), module_facts, ["integrated_gradients", "random"], budgets=(1, 5),
        keep=("unknown",), progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = comparison.report(tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> str:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [1, 0])
    table = pd.DataFrame({"recall_at_1": ["+10.0 % [+1.0, +20.0]"]}, index=["random"])
    manifest = {
        "model": {"name": "m", "class": "M", "layers": 1, "neurons_per_layer": 2, "dtype": "float32"},
        "created": "now",
        "seconds": 1,
    }
    path = write_page(
        tmp_path_factory.mktemp("page") / "report.html",
        "A title",
        [TitledTable("What was found", table), TitledTable("Only words")],
        {"line": CaptionedFigure(figure, 'A line that "falls"')},
        manifest,
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def grid(
    session_load_tiny: Callable[..., NeuronModel], module_facts: FactSet, tmp_path_factory: pytest.TempPathFactory
) -> str:
    found = compare_grid(
        session_load_tiny("masked"), module_facts, ["activation", "random"], [Factor("threshold", (0.2, 0.5))],
        keep=("unknown",), progress=False,
    )  # fmt: skip
    return found.report(tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def injection(
    session_load_tiny: Callable[..., NeuronModel], module_facts: FactSet, tmp_path_factory: pytest.TempPathFactory
) -> str:
    settings = InjectionSettings(known_share=1.01, ratios=(0.3,), information="unknown", rate=0.1)
    run = InjectionProtocol(session_load_tiny("masked"), module_facts, ["activation"], settings, progress=False)
    return run.publish(run.run(), tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


def problems(page: Page) -> Iterator[str]:
    """What keeps a page from being read by everybody."""
    levels = [int(e["tag"][1]) for e in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"headings of level one: {levels.count(1)}"
    yield from (f"level {b} after {a}" for a, b in pairwise(levels) if b > a + 1)
    if [e["attrs"].get("lang") for e in page.all("html")] != ["en"] or len(page.all("main")) != 1:
        yield "no language, or no main part"
    for table in page.all("table"):
        if not any(e["tag"] == "caption" and e["text"].strip() for e in table["of"]):
            yield "a table without a caption"
        if not any(e["tag"] == "thead" for e in table["of"]):
            yield "a table without a head"
    for head in page.all("th"):
        expected = "col" if "thead" in head["inside"] else "row"
        if head["attrs"].get("scope") != expected or not head["text"].strip():
            yield f"a head that is empty or whose scope is not {expected}: {head['text']!r}"
    for image in page.all("svg"):
        if image["attrs"].get("role") != "img" or not image["attrs"].get("aria-label"):
            yield "an image without words"
    for element in page.elements:
        attrs, classes = element["attrs"], (element["attrs"].get("class") or "").split()
        if {"scroll", "paper"} & set(classes) and not (attrs.get("tabindex") == "0" and attrs.get("aria-label")):
            yield f"a region that scrolls, but not by keyboard, or has no name: {classes}"
        if int(attrs.get("tabindex") or 0) > 0:
            yield "an order of tabs of its own"
        if attrs.get("role") == "button":
            yield "a button that is none"
    for details in page.all("details"):
        if details["of"][0]["tag"] != "summary" or not details["of"][0]["text"].strip():
            yield "a fold without a summary"


@pytest.mark.parametrize("name", ["html", "experiment", "injection", "grid"])
def test_pages_keep_the_rules(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name))
    assert len(page.all("table")) >= 1
    assert len(page.all("svg")) >= 1
    assert list(problems(page)) == []


@pytest.mark.parametrize(
    ("good", "bad", "found"),
    [
        ("<h2>Answers</h2>", "<h4>Answers</h4>", "level 4 after 1"),
        ("<h1>", "<h1>twice</h1><h1>", "headings of level one: 2"),
        (' lang="en"', "", "no language, or no main part"),
        ("<caption>", "<caption></caption><p>", "a table without a caption"),
        ('<th scope="row">', "<th>", "whose scope is not row"),
        ('<svg role="img"', "<svg", "an image without words"),
        ('class="scroll" role="group" tabindex="0"', 'class="scroll"', "a region that scrolls"),
        ('class="scroll" role="group" tabindex="0"', 'class="scroll" tabindex="3"', "an order of tabs of its own"),
        ('<th scope="col">', '<th scope="col" role="button">', "a button that is none"),
        ("<summary>", "<p>", "a fold without a summary"),
    ],
)
def test_broken_rules_are_found(html: str, good: str, bad: str, found: str) -> None:
    assert good in html
    assert any(found in each for each in problems(Page(html.replace(good, bad, 1))))


def test_words_of_images_are_escaped(experiment: str) -> None:
    assert [e["attrs"]["aria-label"] for e in Page(experiment).all("svg")] == ['A line that "falls"']


def test_heads_become_buttons_by_script_alone(html: str) -> None:
    # Without a script a head is text: a button that does nothing would be worse than none.
    assert Page(html).all("button") == []
    assert 'createElement("button")' in html
    assert 'button.type = "button"' in html


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def schemes(css: str) -> list[dict[str, str]]:
    """Custom properties of each ``:root``, in order."""
    return [
        dict(re.findall(r"--(\w+):\s*(#[0-9a-f]{3,6})\b", block)) for block in re.findall(r":root \{([^}]*)\}", css)
    ]


def test_contrast_is_measured_as_defined() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#fff", "#777777") == contrast("#777777", "#fff")


def test_contrast_suffices_in_light_in_dark_and_on_paper(html: str) -> None:
    css = html[html.index("<style>") : html.index("</style>")]
    light, dark, paper = schemes(css)
    assert "prefers-color-scheme: dark" in css
    assert luminance(light["paper"]) > 0.9 > 0.1 > luminance(dark["paper"])
    assert luminance(paper["paper"]) == pytest.approx(1)
    for colours in (light, dark, paper):
        assert {"ink", "soft", "mark", "paper", "tint"} <= set(colours)
        for text in ("ink", "soft", "mark"):
            for ground in ("paper", "tint"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground, colours)
    # No rule colours text with anything else.
    assert set(re.findall(r"(?<![-\w])color:\s*([^;}]+)", css)) <= {
        "inherit",
        "var(--ink)",
        "var(--soft)",
        "var(--mark)",
    }


def test_paper_shows_what_is_folded_or_leaves_it_out(html: str) -> None:
    folds = Page(html).all("details")
    kinds = [set((fold["attrs"].get("class") or "").split()) for fold in folds if "details" not in fold["inside"]]
    assert len(kinds) > 5
    assert all(kind in ({"paged"}, {"screen"}) for kind in kinds)
    sheet = html[html.index("@media print {\n") :]
    assert "details.screen { display: none; }" in sheet
    assert "details.paged::details-content" in sheet
    assert re.search(r"\.scroll, \.paper \{ overflow: visible; \}", sheet)
    assert '"beforeprint"' in html


def many(comparison: Comparison, times: int) -> Comparison:
    """The same facts again and again under other names; the last change most."""

    def copies(frame: pd.DataFrame) -> pd.DataFrame:
        parts = [frame.assign(fact=frame.fact + f":{i}") for i in range(times)]
        if "value" in frame:
            parts = [part.assign(value=part.value - i) for i, part in enumerate(parts)]
        found: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return found

    return replace(
        comparison,
        rows=copies(comparison.rows),
        facts=copies(comparison.facts),
        neurons=copies(comparison.neurons),
        agreement=comparison.agreement,
    )


def test_a_page_of_many_facts_stays_small_and_folded(comparison: Comparison, tmp_path: Path, html: str) -> None:
    used = int((comparison.facts.status == "used").sum())
    large = many(comparison, 2 * DRILLED)
    shown = drill_down(large)
    assert len(shown) == DRILLED < 2 * DRILLED * used
    numbers = {int(fact.rsplit(":", 1)[1]) for fact in shown}
    assert {0, 2 * DRILLED - 1} <= numbers  # the least and the most changed
    assert DRILLED not in numbers
    text = large.report(tmp_path / "large.html").read_text(encoding="utf-8")
    page = Page(text)
    assert f"{DRILLED} of {2 * DRILLED * used} facts" in text
    assert f"{DRILLED} of" not in html
    assert sum(e["tag"] == "table" and "details" not in e["inside"] for e in page.elements) == sum(
        e["tag"] == "table" and "details" not in e["inside"] for e in Page(html).elements
    )
    assert len(text) < len(html) + 400 * 2 * DRILLED * used + 3000 * DRILLED
    listed = next(f for f in page.all("details") if "facts that were scored" in f["of"][0]["text"])
    assert listed["attrs"]["class"] == "screen"
    assert "open" not in listed["attrs"]


def test_intervals_stand_under_their_means() -> None:
    macro: Any = environment().get_template("_table.html").module
    assert macro.cell("−1.0 % [−2.0, +0.1]") == "<td>−1.0 % <br><small>[−2.0, +0.1]</small></td>"
    assert macro.cell("<b>") == "<td>&lt;b&gt;</td>"
    assert 'class="long"' in macro.cell("L0:1, L0:2, L0:3, L0:4, L0:5, L0:6")


@pytest.mark.parametrize("name", ["html", "experiment", "injection", "grid"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    name: str, scheme: str, request: pytest.FixtureRequest, tmp_path: Path, axe: Callable[..., list[str]]
) -> None:
    file = tmp_path / "report.html"
    file.write_text(request.getfixturevalue(name), encoding="utf-8")
    for width in (1280, 400):
        assert axe(file, scheme, width) == []
    assert axe(file, scheme, 1280, media="print") == []


def test_axe_finds_what_is_wrong(html: str, tmp_path: Path, axe: Callable[..., list[str]]) -> None:
    file = tmp_path / "report.html"
    file.write_text(html.replace(' lang="en"', "").replace("--soft: #5c636b", "--soft: #bbbbbb"), encoding="utf-8")
    found = " ".join(axe(file))
    assert "html-has-lang" in found
    assert "color-contrast" in found
