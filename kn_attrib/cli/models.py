"""``kn-attrib models``: the models that ship with the package."""

from __future__ import annotations

from typing import Any

from kn_attrib.cli import options
from kn_attrib.loading import ZOO_PREFIX
from kn_attrib.zoo import zoo_card, zoo_names, zoo_path

NAME = "models"


def command() -> None:
    """List the shipped models: what they are, what they know, where they lie.

    Example: kn-attrib models
    """
    rows = []
    for name in zoo_names():
        card: dict[str, Any] = dict(zoo_card(name))
        accuracy = card["accuracy"]
        rows.append(
            [
                ZOO_PREFIX + name,
                card["summary"],
                card["facts"],
                f"{accuracy['prompts']:.1%}",
                f"{accuracy['held_out']:.1%}",
                zoo_path(name),
            ]
        )
    options.show(rows, ["model", "what it is", "facts", "known, prompts", "held out", "folder"])
