"""Natural, publicly pretrained models for tests: read from a folder of the tester's, skipped without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

WHERE = (
    "set KN_ATTRIB_NATURAL to a folder with smollm2/ and gemma3/: HuggingFaceTB/SmolLM2-135M-Instruct and "
    "google/gemma-3-270m, as save_pretrained writes them"
)


def natural_folder(name: str) -> str:
    """Path of a natural model; skips the test, saying how to get it, where there is none."""
    folder = Path(os.environ.get("KN_ATTRIB_NATURAL", "")) / name
    if "KN_ATTRIB_NATURAL" not in os.environ or not (folder / "config.json").exists():
        pytest.skip(WHERE)
    return str(folder)
