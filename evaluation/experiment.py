"""What an experiment is written in: settings, units of work that are finished whole, flat rows, and the record of it.

An experiment is a subclass of `Experiment` that says which facts it takes, what its units of work are and what is
measured in one; everything else is here. Its settings are a subclass of `ExperimentSettings`, whose fields are the
keywords of its function, the record in the manifest and (`Option`) the options of its command.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar

import pandas as pd

from kn_attrib.errors import ConfigError, check_kinds, listed
from kn_attrib.evaluation.measure.known_facts import Selection, select_facts
from kn_attrib.evaluation.records.folder import open_folder
from kn_attrib.evaluation.records.journal import Entry
from kn_attrib.evaluation.records.pages import CaptionedFigure, save_figures, write_page
from kn_attrib.evaluation.records.progress import progress_bar
from kn_attrib.evaluation.records.provenance import identity_of, jsonable, manifest_of, methods_of
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.loading import load_facts
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.cost import cost_text, spending
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.randomness import checked_seed
from kn_attrib.scoring.method_specs import Method, labelled, make_method
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.score import fit, score_prompts
from kn_attrib.scoring.scorer import Scorer

LOG = logging.getLogger(__name__)
Facts = str | Path | Sequence[Fact]
Methods = Sequence[str | type[Scorer] | Scorer]
Rows = dict[str, list[dict[str, Any]]]
"""Table -> its rows."""


class Option(NamedTuple):
    """Annotation of a field of settings that is an option of the experiment's command too.

    Parameters
    ----------
    help : what the option says of itself.
    name : how it is called, if not by the field's name.
    least : smallest number that it takes.
    """

    help: str
    name: str = ""
    least: int | None = None


@dataclass(frozen=True)
class ExperimentSettings:
    """Settings that every experiment on facts has.

    Parameters
    ----------
    limit : most facts, taken from the relations in turn.
    fact : id of the only fact to take, in place of ``limit``; the others serve where it is compared with others.
    max_prompts : most attribution prompts per fact.
    known_share : a fact is known if its answer is on top in at least this share of its prompts.
    seed : of everything random.
    """

    limit: Annotated[int | None, Option("Most facts, taken from the relations in turn; 0 for all.", least=0)] = 34
    max_prompts: Annotated[int | None, Option("Most prompts per fact; 0 for all.", least=0)] = None
    known_share: float = 0.5
    seed: Annotated[int, Option("Seed of everything random.")] = 0
    fact: Annotated[str, Option("Only the fact with this id, e.g. capital:France; others serve as others.")] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError on a setting that is out of range for the model."""


S = TypeVar("S", bound=ExperimentSettings)
U = TypeVar("U")
R = TypeVar("R", bound=Result)


class Experiment(ABC, Generic[S, U, R]):
    """One run of an experiment on some facts, with some methods.

    Parameters
    ----------
    model : from `load_model`.
    facts : anything `load_facts` reads.
    methods : names, ``"name:preset"``, ``"name(param=value)"``, classes or scorers.
    settings : the experiment's own.
    folder : where finished units are kept as the run goes on, and the result is saved in the end; stopped or killed,
        the same run goes on. None keeps everything in memory.
    overwrite : start anew, whatever the folder holds.
    progress : show a progress bar.

    Class attributes of an experiment:

    - ``name``: in manifests, and as a command;
    - ``columns``: the columns of its rows, beside ``fact, relation`` and ``value``, that say what a number is of.

    Raises
    ------
    ConfigError : a setting is out of range, there is no method, two are the same, or one scores other units.
    MethodError : a method is unknown.
    FactError : there is no fact of the id that is asked for.
    StoreError : the folder holds something else.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: NeuronModel,
        facts: Facts,
        methods: Methods,
        settings: S,
        folder: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
    ) -> None:
        check_model(model)
        check_kinds(settings)
        settings.check(model)
        self.model = model
        self.facts = load_facts(facts)
        if settings.fact:
            _ = self.facts[settings.fact]  # an unknown one is said before anything is computed
        self.scorers = scorers_of(methods)
        self.settings = settings
        self.progress = progress
        self.journal = open_folder(folder, overwrite, self._identity)
        self.selection = Selection(())
        self._spent: dict[str, dict[str, float]] = {}

    @abstractmethod
    def units(self) -> Sequence[U]:
        """The units of work, from ``self.selection``; raises FactError if there are none."""

    @abstractmethod
    def measure(self, unit: U) -> Rows:
        """Rows of one unit, by table; in plain numbers and text, as JSON holds them."""

    @abstractmethod
    def result(self, rows: Rows, manifest: dict[str, Any]) -> R:
        """The result, from the rows of all units."""

    def further(self, rows: Rows) -> dict[str, Any]:  # noqa: ARG002  # for subclasses
        """What else the manifest records."""
        return {}

    def tables(self, result: R) -> Iterable[TitledTable]:
        """What is printed of a result and stands on its page; all means with their intervals, if not said otherwise."""
        yield TitledTable(f"{self.name}: mean [95 % interval]", result.summary_text())

    def figures(self, result: R) -> dict[str, CaptionedFigure]:  # noqa: ARG002  # for subclasses
        """Figures of a result, by name; none, if not said otherwise."""
        return {}

    def publish(self, result: R, folder: Path) -> Path:
        """Write the figures (``figures/``) and the page (``report.html``) of a result; returns the page's path."""
        figures = self.figures(result)
        save_figures({name: each.figure for name, each in figures.items()}, folder / "figures")
        title = f"{self.name.upper()}: {type(self).summary()}"
        return write_page(folder / "report.html", title, self.tables(result), figures, result.manifest)

    @classmethod
    def summary(cls) -> str:
        """First line of the class's docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    def select(self) -> Selection:
        """Ask the model for all facts."""
        s = self.settings
        return select_facts(
            self.model,
            self.facts,
            limit=s.limit,
            max_prompts=s.max_prompts,
            known_share=s.known_share,
            only=s.fact,
        )

    @torch_defaults()
    def run(self) -> R:
        """Measure unit after unit; those that an earlier run has finished are read from its folder."""
        self.journal.open(self._identity())
        with self.journal.kept():
            return self._run(time.perf_counter())

    def _identity(self) -> dict[str, Any]:
        methods = {label: Method(scorer) for label, scorer in self.scorers.items()}
        return identity_of(self.model, self.facts, asdict(self.settings), methods, experiment=self.name)

    def _run(self, started: float) -> R:
        self.selection = self.select()
        rows: Rows = defaultdict(list)
        cost: dict[str, dict[str, float]] = {}
        units = self.units()
        with progress_bar(self.name.upper(), len(units), self.progress) as update:
            for number, unit in enumerate(units):
                record = self._finished(f"unit-{number}", unit)
                for table, found in record["rows"].items():
                    rows[table] += _unpacked(found)
                _add(cost, record["cost"])
                update(1)
                LOG.debug("%s: %d of %d units are done", self.name, number + 1, len(units))
        for method, spent in cost.items():
            LOG.info("%s: %s: %s", self.name, method, cost_text(spent))
        manifest = self._manifest(started, rows, cost)
        found = self.result(rows, manifest)
        if self.journal.folder is not None:
            found.save(self.journal.folder, overwrite=True)
            self.journal.close()
        return found

    def _finished(self, name: str, unit: U) -> Mapping[str, Any]:
        def work() -> Entry:
            self._spent = {}
            rows = {table: _packed(found) for table, found in self.measure(unit).items()}
            return Entry(record={"rows": rows, "cost": self._spent})

        return self.journal.get(name, work).record

    def _manifest(self, started: float, rows: Rows, cost: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        return manifest_of(
            self.model,
            self.facts,
            started,
            experiment=self.name,
            identity=self.journal.identity,
            columns=list(self.columns),
            settings=jsonable(asdict(self.settings)),
            methods=methods_of(self.scorers, cost),
            **self.further(rows),
        )

    @contextmanager
    def costing(self, method: str) -> Iterator[None]:
        """While active, what the model is run for is what a method costs."""
        with spending(self.model.execution.cost, self._spent.get(method)) as self._spent[method]:
            yield

    def score(self, method: str, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> NeuronScores:
        """Scores of queries by a method that is fitted on them and on others; its cost is counted."""
        with self.costing(method):
            fitted = fit(self.scorers[method], self.model, prompts, others)
            return score_prompts(self.model, prompts, fitted)

    def rows_frame(self, rows: Rows, *further: str) -> pd.DataFrame:
        """The table ``"rows"`` with the experiment's columns, and further ones, before ``value``."""
        columns = ["fact", "relation", *self.columns, *further, "value"]
        frame: pd.DataFrame = pd.DataFrame(rows["rows"], columns=columns)
        return frame


def _packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of the same columns as lists, which keep their order on disk as objects do not."""
    columns = list(rows[0]) if rows else []
    return {"columns": columns, "values": [[row[column] for column in columns] for row in rows]}


def _unpacked(packed: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(packed["columns"], values, strict=True)) for values in packed["values"]]


def _add(total: dict[str, dict[str, float]], further: Mapping[str, Mapping[str, float]]) -> None:
    for method, spent in further.items():
        before = total.setdefault(method, dict.fromkeys(spent, 0))
        for what, amount in spent.items():
            before[what] += amount


def scorers_of(methods: Methods) -> dict[str, Scorer]:
    """Scorers of neurons by label.

    Raises
    ------
    MethodError : a method is unknown.
    ConfigError : there is none, two are the same, or one scores other units than neurons.
    """
    found = labelled([make_method(method) for method in listed("methods", methods)])
    for label, method in found.items():
        if method.units is not None:
            raise ConfigError(
                f"{label!r} scores other units; this experiment is about neurons, so name it without '@…'."
            )
    return {label: method.scorer for label, method in found.items()}
