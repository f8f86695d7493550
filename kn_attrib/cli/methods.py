"""``kn-attrib methods``: what is registered."""

from __future__ import annotations

from typing import Annotated

import typer

from kn_attrib.cli import options
from kn_attrib.scoring.catalogue import catalogue
from kn_attrib.scoring.registry import get_method, list_methods, origin

NAME = "methods"


def command(
    plugin: options.Plugin = None,
    markdown: Annotated[bool, typer.Option(help="Print a page of documentation instead.")] = False,
) -> None:
    """List the scoring methods: summary, parameters with defaults, presets, paper, origin.

    Example: kn-attrib methods --plugin my_scorer.py
    """
    options.plugins(plugin)
    if markdown:
        print(catalogue(), end="")
        return
    every = list_methods(aliases=True)
    for name in list_methods():
        cls = get_method(name)
        others = ", ".join(other for other in every if other != name and get_method(other) is cls)
        parameters = ", ".join(f"{parameter}={value!r}" for parameter, value in cls.defaults().items())
        print(f"{name} (also {others})" if others else name)
        print(f"    {cls.summary()}")
        print(f"    parameters: {parameters or 'none'}")
        if cls.presets:
            print(f"    presets:    {', '.join(f'{name}:{preset}' for preset in cls.presets)}")
        print(f"    paper:      {cls.reference or '–'}")
        print(f"    origin:     {origin(cls)}")
