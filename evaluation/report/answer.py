"""An answer to one question about a comparison: in a line, in full, and the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kn_attrib.evaluation.records.text import interval_text, with_interval
from kn_attrib.evaluation.statistics.significance import Difference

Unit = Literal["%", "points", "nats"]
"""Of shares and relative changes; of differences between these; of log-probabilities."""


@dataclass(frozen=True)
class Number:
    """A mean with its 95 % interval, whose ends are not numbers where there is none.

    Attributes
    ----------
    name : what it is of.
    clear : it is told apart from what it is held against; drawn filled, else hollow.
    """

    name: str
    mean: float
    low: float
    high: float
    clear: bool = True


@dataclass(frozen=True)
class Panel:
    """Numbers of one unit, drawn on one scale.

    Attributes
    ----------
    caption : what they are, a sentence.
    marks : values that the verdict compares them with.
    """

    caption: str
    numbers: tuple[Number, ...]
    unit: Unit = "%"
    marks: tuple[float, ...] = ()

    def text(self) -> str:
        """The numbers in words, for those who do not see the chart."""
        parts = [f"{n.name} {_number_text(n, self.unit)}" for n in self.numbers]
        return f"{self.caption} {'; '.join(parts)}."


@dataclass(frozen=True)
class Answer:
    """One question and what the rows say.

    Attributes
    ----------
    question, answer : in words.
    verdict : ``"yes"``, ``"no"``, ``"mixed"`` or ``"unknown"``.
    short : the verdict and the numbers that decide it, in one line.
    panels : the numbers that it rests on; none where nothing was measured.
    """

    question: str
    answer: str
    verdict: str
    short: str
    panels: tuple[Panel, ...] = ()


def panel(caption: str, numbers: Sequence[Number], unit: Unit = "%", marks: Sequence[float] = ()) -> tuple[Panel, ...]:
    """One panel of the numbers that can be drawn; none if there are none."""
    finite = tuple(n for n in numbers if np.isfinite(n.mean))
    return (Panel(caption, finite, unit, tuple(marks)),) if finite else ()


def percent(mean: float, low: float, high: float, marks: Sequence[float] = ()) -> str:
    """A relative change with its interval; `marks` as of `with_interval`."""
    return interval_text(mean, low, high, percent=True, marks=marks)


def share(mean: float, low: float, high: float, marks: Sequence[float] = ()) -> str:
    """A share in whole percent, without a plus; `marks` as of `with_interval`.

    >>> share(0.784, -0.02, 0.89)
    '78 % [−2, 89]'
    """
    return with_interval(mean, low, high, 0, " %", scale=100, marks=marks)


def level(mean: float, low: float, high: float) -> str:
    """A probability in percent, which has no sign.

    >>> level(0.774, 0.7, 0.81)
    '77.4 % [70.0, 81.0]'
    """
    return with_interval(mean, low, high, 1, " %", scale=100)


def points(gap: Difference) -> str:
    """A difference of relative changes in percentage points."""
    return points_text(gap.mean, gap.low, gap.high)


def points_text(mean: float, low: float, high: float) -> str:
    """A difference in percentage points.

    >>> points_text(0.873, 0.794, 0.93)
    '87.3 points [79.4, 93.0]'
    """
    return with_interval(mean, low, high, 1, " points", scale=100)


def signed_p(value: float) -> str:
    """A p-value with its sign of equality or inequality."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, end = names
    return f"{', '.join(first)} {last} {end}" if first else end


def _number_text(number: Number, unit: Unit) -> str:
    if unit == "points":
        return points_text(number.mean, number.low, number.high)
    text = interval_text(number.mean, number.low, number.high, percent=unit == "%")
    return text if unit == "%" else f"{text} nats"
