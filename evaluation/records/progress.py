"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress_bar(what: str, total: int | None, show: bool) -> Iterator[Callable[[int], object]]:
    """While active, a bar that is moved on by calling what is yielded; never one where nobody can see it."""
    with tqdm(desc=what, total=total, disable=None if show else True, leave=False) as bar:
        yield bar.update
