"""Loading without the bars that transformers draws while it reads weights; those of downloads stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging


def _no_bar(_: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return logging.EmptyTqdm(*args, **kwargs)


@contextmanager
def no_bars() -> Iterator[None]:
    """While active, transformers shows no bars of its own; undone on any exit."""
    # Older releases have no hook, and their switch would silence downloads too, which may take long.
    set_hook: Any = getattr(logging, "set_tqdm_hook", None)
    if set_hook is None:
        yield
        return
    before = set_hook(_no_bar)
    try:
        yield
    finally:
        set_hook(before)
