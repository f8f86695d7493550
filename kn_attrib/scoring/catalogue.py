"""The registered methods as a page of Markdown, made from their classes, so that it cannot say anything else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping

from kn_attrib.scoring.registry import get_method, list_methods
from kn_attrib.scoring.scorer import ContrastScorer, FactScorer, Scorer

INTRODUCTION = """# Methods

Every scoring method gives one number for each neuron, layer and prompt: larger means more responsible for the answer.
`a` is a layer's activation at the answer position, `f_l(w)` the objective with that activation replaced by `w`, `v_i`
what neuron `i` writes to the residual stream per unit of activation. This page is made from the classes' docstrings by
`kn-attrib methods --markdown`.
"""
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def catalogue() -> str:
    """All registered methods: summary, definition, parameters, presets, what they are fitted on, reference."""
    names = list_methods()
    contents = [f"- [{name}](#{name}): {get_method(name).summary()}" for name in names]
    return "\n".join([INTRODUCTION, *contents, ""]) + "".join(f"\n{entry(name)}" for name in names)


def entry(name: str) -> str:
    """One method's part of the page."""
    cls = get_method(name)
    sections = dict(_sections(cls))
    lines = [f"## {name}", "", sections.pop("")]
    others = [a for a in list_methods(aliases=True) if a != name and get_method(a) is cls]
    if others:
        named = ", ".join(f"`{other}`" for other in others)
        lines += ["", f"Also registered as {named}."]
    lines += ["", f"Fitted on: {_needs(cls)}."]
    if cls.defaults():
        defaults = ", ".join(f"`{k}={v!r}`" for k, v in cls.defaults().items())
        lines += ["", f"Defaults: {defaults}.", "", _definitions(sections.pop("Parameters", ""))]
    if cls.presets:
        presets = ", ".join(f"`{name}:{preset}` ({_assigned(params)})" for preset, params in cls.presets.items())
        lines += ["", f"Presets: {presets}."]
    for title in ("Raises", "Reference"):
        if title in sections:
            lines += ["", f"{title}: {_flowing(sections[title])}"]
    return "\n".join(lines) + "\n"


def _assigned(params: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in params.items())


def _needs(cls: type[Scorer]) -> str:
    if issubclass(cls, FactScorer):
        return "all prompts of a fact at once, with other facts for contrast where it uses any"
    if issubclass(cls, ContrastScorer):
        return "other facts, for contrast"
    return "nothing, it looks at one prompt at a time"


def _sections(cls: type[Scorer]) -> Iterator[tuple[str, str]]:
    """Title and text of a docstring's parts; the first has no title."""
    parts = SECTION.split(inspect.cleandoc(cls.__doc__ or ""))
    yield "", parts[0].strip()
    yield from ((title, text.strip("\n")) for title, text in zip(parts[1::2], parts[2::2], strict=True))


def _definitions(text: str) -> str:
    """``name : text`` lines, continued by indentation, as a list."""
    return re.sub(r"^(\w[\w, ]*) : ", r"- `\1`: ", re.sub(r"\n +", " ", text), flags=re.MULTILINE)


def _flowing(text: str) -> str:
    return re.sub(r"\s+", " ", text)
