"""Freed memory is kept where the C library can, and nothing happens elsewhere."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from kn_attrib.models import allocator

FAULTS = """
import resource, sys, torch
from kn_attrib.models.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def touch(): torch.ones(16_000_000)
for _ in range(4): touch()  # the first place themselves, or find another place
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes the setting")
def test_freed_pages_are_used_again() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["keep"] < 0.2 * faults["default"]


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("must not be asked"))
    assert not allocator.keep_freed_memory()
