"""A damaged folder of a model is one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kn_attrib import load_model
from kn_attrib.errors import ModelError


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def lose_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, path, {"format": "pt"})


def resize(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 44}))


CORRUPT: dict[str, Callable[[Path], Any]] = {
    "truncated weights": truncate,
    "empty weights": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "lost weights": lose_weights,
    "other shapes": resize,
    "broken config": lambda folder: (folder / "config.json").write_text("{"),
    "no model type": lambda folder: (folder / "config.json").write_text("{}"),
    "broken tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("damage", CORRUPT)
def test_a_corrupted_folder_is_one_clear_error(saved_bert: Path, tmp_path: Path, damage: str) -> None:
    for file in saved_bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    load_model(str(tmp_path))
    CORRUPT[damage](tmp_path)
    with pytest.raises(ModelError, match=r"could not be loaded: \S") as caught:
        load_model(str(tmp_path))
    assert len(str(caught.value)) < 600
