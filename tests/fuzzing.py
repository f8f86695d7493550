"""Arbitrary and damaged files for the fuzz tests in ``hostile/``, and the check that a reader answers them.

``KN_ATTRIB_FUZZ=N`` runs N random examples of each reader instead of a few that are always the same.
"""

from __future__ import annotations

import atexit
import copy
import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kn_attrib.errors import KnAttribError

EXAMPLES = int(os.environ.get("KN_ATTRIB_FUZZ", "0"))
FEW = 120
MODEL = "zoo:gpt2-facts"
RUN: Counter[str] = Counter()
LOADED: Counter[str] = Counter()

fuzz = settings(
    max_examples=EXAMPLES or FEW,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
texts = st.text(max_size=12) | st.sampled_from(["[Y]", "[X] is [Y].", "random", "fact", "\x00", "\ud800", "nan", "1e9"])
numbers = st.integers() | st.floats() | st.just(10**400)
leaves = st.none() | st.booleans() | numbers | texts


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return leaves | st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)


trees = _nested(_nested(_nested(leaves)))


def _say_counts() -> None:
    """How many examples of each reader were run, and how many of these were read."""
    print({name: (count, LOADED[name]) for name, count in RUN.items()}, sum(RUN.values()))


if EXAMPLES:
    atexit.register(_say_counts)


def answered(name: str, read: Callable[[], object], errors: type[KnAttribError] | tuple[type[Exception], ...]) -> Any:
    """What a reader returns, None where it refuses with an error of its own that says something."""
    RUN[name] += 1
    try:
        found = read()
    except errors as error:
        if len(str(error)) < 10:
            raise AssertionError("the error says nothing") from error
        return None
    LOADED[name] += 1
    return found


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """A valid file with some bytes changed, cut out, put elsewhere, or its end missing."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place, other = (draw(st.integers(0, max(len(data) - 1, 0))) for _ in range(2))
        what = draw(st.sampled_from(["flip", "cut", "end", "insert", "copy"]))
        if what == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del data[min(place, other) : max(place, other)]
        elif what == "end":
            del data[place:]
        elif what == "insert":
            data[place:place] = draw(st.binary(max_size=8))
        else:
            data[place:place] = data[other : other + 16]
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, record: Any) -> Any:
    """A valid record with something in it left out, put in, swapped, or of another kind."""
    found = copy.deepcopy(record)
    here: Any = found
    for _ in range(draw(st.integers(0, 5))):
        inner = [v for v in (here.values() if isinstance(here, dict) else here) if isinstance(v, dict | list) and v]
        if not inner:
            break
        here = draw(st.sampled_from(inner))
    keys = list(here) if isinstance(here, dict) else list(range(len(here)))
    key, other = draw(st.sampled_from(keys)), draw(st.sampled_from(keys))
    what = draw(st.sampled_from(["drop", "set", "swap", "add"]))
    if what == "drop":
        del here[key]
    elif what == "swap":
        here[key], here[other] = here[other], here[key]
    elif what == "add" and isinstance(here, dict):
        here[draw(texts)] = draw(trees)
    else:
        here[key] = draw(trees)
    return found


def files(content: bytes, *records: Any) -> st.SearchStrategy[bytes]:
    """Files around a valid one: arbitrary bytes, arbitrary JSON, mutations of the file, changes of what it holds."""
    arbitrary = st.binary(max_size=200) | trees.map(encoded)
    ways = [mutated(content), *(changed(record).map(encoded) for record in records)]
    return st.one_of(arbitrary, *ways)


def encoded(tree: Any) -> bytes:
    """As a JSON file."""
    return json.dumps(tree).encode()
