"""No argument of anything public is ignored: each changes what a call comes to, or is refused.

Who adds an argument adds it to the tables (`argument_tables`): `test_every_argument_has_a_case` fails until then.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import tqdm.std

from argument_cases import Case, public, seen
from argument_tables import package_cases
from argument_tables_of_editing import HOOKS as EDITORS_OWN
from argument_tables_of_experiments import evaluation_cases
from argument_world import World
from kn_attrib import Attribution, Comparison, NeuronScores, Pool
from kn_attrib.errors import KnAttribError
from kn_attrib.evaluation import (
    Answer,
    Grid,
    Plant,
    PlantedResult,
    PromptTypes,
    ProtocolResult,
    ReadingResult,
    Texts,
    TopPrompts,
    Trace,
)

HOOKS = {
    *(f"Scorer.{name}" for name in ("score", "fit", "rows_per_prompt")),
    *("ContrastScorer.fit", "FactScorer.fit", "FactScorer.score", "FactScorer.score_facts"),
    *(f"Experiment.{name}" for name in ("figures", "further", "measure", "result", "tables", "units")),
    "ExperimentSettings.check",
    *EDITORS_OWN,
}
"""What methods, editors and experiments fill in, and the package calls."""
CONTENT = (
    Attribution, NeuronScores, Comparison, Grid, Plant, PlantedResult, PromptTypes, ProtocolResult, ReadingResult,
    Texts, TopPrompts, Trace, Answer, Pool,
)  # fmt: skip
RECORDS: dict[str, type[Any]] = {each.__name__: each for each in CONTENT}
"""Classes whose arguments are their content."""


class Stranger:
    """No argument is of this kind."""


SIGNATURES = public()
PAIRS = [(name, argument) for name, signature in SIGNATURES.items() for argument in signature.parameters]
TRIED = [(name, argument) for name, argument in PAIRS if name not in HOOKS and name not in RECORDS]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    world = World(tmp_path_factory.mktemp("world"))
    return {**package_cases(world), **evaluation_cases(world)}


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whether progress bars that were made may be seen."""
    found: list[Any] = []
    make = tqdm.std.tqdm.__init__

    def noted(self: Any, *args: Any, **given: Any) -> None:
        found.append(given.get("disable"))
        make(self, *args, **given)

    monkeypatch.setattr(tqdm.std.tqdm, "__init__", noted)
    return found


FOUND: dict[tuple[Any, ...], str] = {}


def outcome(case: Case, given: dict[str, Any], bars: list[Any]) -> str:
    """What a call comes to; of the same arguments it is found out once."""
    key = (id(case), *sorted((name, id(value)) for name, value in given.items()))
    if key not in FOUND:
        bars.clear()
        try:
            result = seen(case.call(**given))
        except KnAttribError as error:
            result = f"{type(error).__name__}: {error}"
        FOUND[key] = f"{result} bars: {bars}"
    return FOUND[key]


def test_every_argument_has_a_case(cases: dict[str, Case]) -> None:
    known = {(name, argument) for name, case in cases.items() for argument in {**case.given, **case.other}}
    assert [pair for pair in TRIED if pair not in known] == []
    assert sorted(known - set(PAIRS)) == []
    assert HOOKS | RECORDS.keys() <= SIGNATURES.keys()


@pytest.mark.parametrize(("name", "argument"), TRIED, ids=[".".join(pair) for pair in TRIED])
def test_an_argument_has_an_effect(name: str, argument: str, cases: dict[str, Case], bars: list[Any]) -> None:
    case = cases[name]
    given = {**case.given, **case.beside.get(argument, {})}
    if argument in case.other:
        before = outcome(case, given, bars)
        assert not before.startswith(("ConfigError", "TypeError")), before
        if outcome(case, {**given, argument: case.other[argument]}, bars) == before:
            pytest.fail(f"{argument} of {name} changes nothing")
    else:
        # It is always given: what nobody could take for an argument shows whether anybody looks at it.
        with pytest.raises((KnAttribError, TypeError, ValueError, AttributeError, LookupError)):
            case.call(**{**given, argument: Stranger()})


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_what_it_was_given(name: str) -> None:
    record = RECORDS[name]
    given = {field.name: Stranger() for field in dataclasses.fields(record) if field.init}
    assert given.keys() == SIGNATURES[name].parameters.keys()
    made = record(**given)
    assert all(getattr(made, argument) is value for argument, value in given.items())
