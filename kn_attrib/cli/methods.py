"""``kn-attrib methods``: what is registered."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kn_attrib.cli import options, screen
from kn_attrib.errors import ConfigError
from kn_attrib.scoring.catalogue import catalogue
from kn_attrib.scoring.registry import get_method, list_methods, origin

NAME = "methods"


def command(
    name: Annotated[str, typer.Argument(help="Show this method alone.")] = "",
    plugin: options.Plugin = None,
    markdown: Annotated[bool, typer.Option(help="Print a page of documentation instead.")] = False,
) -> None:
    """List the scoring methods, or show one: summary, parameters with defaults, presets, paper, origin.

    Example: kn-attrib methods integrated_gradients
    """
    if name and markdown:
        raise ConfigError("--markdown prints the page of all methods; leave the name or --markdown out.")
    options.plugins(plugin)
    names = [get_method(name).name] if name else list_methods()
    if markdown:
        typer.echo(catalogue(), nl=False)
        return
    screen.give(methods=[_record(each) for each in names])
    for each in names:
        screen.say(_entry(each))


def _aliases(name: str) -> list[str]:
    cls = get_method(name)
    return [other for other in list_methods(aliases=True) if other != name and get_method(other) is cls]


def _record(name: str) -> dict[str, Any]:
    """A method as the JSON document holds it."""
    cls = get_method(name)
    return {
        "name": name,
        "aliases": _aliases(name),
        "summary": cls.summary(),
        "parameters": cls.defaults(),
        "presets": cls.presets,
        "reference": cls.reference,
        "origin": origin(cls),
    }


def _entry(name: str) -> str:
    """A method in some lines."""
    cls, others = get_method(name), ", ".join(_aliases(name))
    parameters = ", ".join(f"{parameter}={value!r}" for parameter, value in cls.defaults().items())
    lines = [
        f"{name} (also {others})" if others else name,
        f"    {cls.summary()}",
        f"    parameters: {parameters or 'none'}",
        f"    paper:      {cls.reference or '–'}",
        f"    origin:     {origin(cls)}",
    ]
    if cls.presets:
        lines.insert(3, f"    presets:    {', '.join(f'{name}:{preset}' for preset in cls.presets)}")
    return "\n".join(lines)
