"""The small models that ship with the package: names, folders, cards."""

from __future__ import annotations

from pathlib import Path

from kn_attrib.errors import ModelError, unknown
from kn_attrib.store import read_json

MODELS = Path(__file__).parents[1] / "zoo" / "models"


def zoo_names() -> tuple[str, ...]:
    """Names of the shipped models, sorted."""
    return tuple(sorted(folder.parent.name for folder in MODELS.glob("*/config.json")))


def zoo_path(name: str) -> Path:
    """Folder of a shipped model, in Hugging Face format.

    Raises
    ------
    ModelError : there is no such model.
    """
    if name not in zoo_names():
        raise ModelError(unknown("zoo model", name, zoo_names()))
    return MODELS / name


def zoo_card(name: str) -> dict[str, object]:
    """The model card as data: what it is, what it knows, how it was trained."""
    return dict(read_json(zoo_path(name) / "card.json"))
