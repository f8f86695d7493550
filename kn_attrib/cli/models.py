"""``kn-attrib models``: the models that ship with the package, and whether another one can be used."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kn_attrib.cli import options, screen
from kn_attrib.models.description import describe
from kn_attrib.models.loading import ZOO_PREFIX
from kn_attrib.models.shipped import zoo_card, zoo_names, zoo_path

NAME = "models"


def command(
    context: typer.Context,
    check: Annotated[str, typer.Option(help="Check this model instead: zoo:NAME, a Hugging Face id or a folder.")] = "",
    ffn_pattern: Annotated[
        str, typer.Option(help="With --check: path of the feed-forward output linears, {i} for the layer.")
    ] = "",
    chat: options.Chat = False,
    dtype: options.Dtype = "float32",
    device: options.Device = "",
) -> None:
    """List the shipped models: what they are, what they know, where they lie; or check whether a model can be used.

    Example: kn-attrib models --check zoo:gpt2-facts
    """
    if not check:
        options.refuse(context, "ffn_pattern", "chat", "dtype", "device", without="--check")
    if check:
        model = options.open_model(check, dtype, device, chat, ffn_pattern)
        described = describe(model)
        screen.say(f"{model!r}\n", model=model.name, description=described)
        # Not a table: paths are to be copied, and a table would break them.
        for label, text in described.items():
            screen.say(f"{label + ':':<19}{text}")
        return
    rows, found = [], []
    for name in zoo_names():
        card: dict[str, Any] = dict(zoo_card(name))
        known = {split: card["accuracy"][split]["all"] for split in ("prompts", "held_out")}
        about = {"model": ZOO_PREFIX + name, "summary": card["summary"], "facts": card["facts"]["number"]}
        found.append(about | {"known": known, "folder": zoo_path(name)})
        rows.append([*about.values(), *map("{:.1%}".format, known.values()), zoo_path(name)])
    columns = ["model", "what it is", "facts", "known, prompts", "held out", "folder"]
    screen.show(rows, columns, models=found)
