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
        known = [f"{card['accuracy'][split]['all']:.1%}" for split in ("prompts", "held_out")]
        rows.append([ZOO_PREFIX + name, card["summary"], card["facts"]["number"], *known, zoo_path(name)])
    options.show(rows, ["model", "what it is", "facts", "known, prompts", "held out", "folder"])
