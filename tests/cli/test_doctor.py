"""`kn-attrib doctor` says what is there, and finds what is wrong."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from kn_attrib.cli import app, doctor


def run() -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor"])
    return result.exit_code, result.output


def test_all_is_well_here() -> None:
    status, text = run()
    assert status == 0, text
    assert "BAD" not in text
    for what in ("Python", "packages", "processor", "memory", "GPU", "methods", "models", "one fact"):
        assert f"ok   {what}:" in text
    assert "fast and plain path" in text


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["torch >=99"], "torch is "),
        (["no-such-package >=1"], "no-such-package is missing"),
        (["numpy <1"], ", expected <1: pip install"),
    ],
)
def test_packages_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, lines: list[str], told: str) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: lines)
    status, text = run()
    assert status == 1
    assert "BAD  packages:" in text
    assert told in text
    assert "1 of these is not as it should be" in text


def test_what_is_asked_for_in_extras_is_not_asked_for_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ['no-such-package >=1; extra == "test"'])
    assert Requirement('x; extra == "test"').marker is not None
    assert doctor._packages().fine


def test_an_installation_whose_models_do_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("cannot open the weights")

    monkeypatch.setattr(doctor, "load_model", fail)
    status, text = run()
    assert status == 1
    assert "BAD  one fact:     OSError: cannot open the weights" in text
