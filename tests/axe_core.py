"""axe-core in a headless Chromium, as a fixture of the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDED = (
    'pip install "kn_attrib[accessibility]", and a Chromium: apt-get install chromium, or playwright install chromium'
)


def _script() -> str:
    """axe-core; the test skips where it, or what drives the browser, is not installed."""
    for module in ("playwright", "axe_playwright_python"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: {NEEDED}")
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def axe() -> Iterator[Callable[..., list[str]]]:
    """What axe-core has against a page in some colours, at a width, on screen or paper; and if it is too wide."""
    script = _script()
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        try:
            # Chromium of the system where there is one, else the one that playwright has fetched.
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser starts ({str(error).splitlines()[0]}): {NEEDED}")

        def check(file: Path, scheme: str = "light", width: int = 1280, media: str = "screen") -> list[str]:
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            page.emulate_media(media=media, color_scheme=scheme)
            page.goto(file.as_uri())
            wide = page.evaluate("document.documentElement.scrollWidth")
            page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
            page.evaluate(script)
            found = page.evaluate("axe.run()")
            page.close()
            assert len(found["passes"]) > 10, "axe-core has not seen the page"
            said = [f"{v['impact']} {v['id']}: {v['nodes'][0]['html']}" for v in found["violations"]]
            return [*said, *([f"{wide} pixels wide on {width}"] if wide > width else [])]

        yield check
        browser.close()
