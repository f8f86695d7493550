"""The frame of experiments: units finished whole, runs that go on, and commands made from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pytest
import typer
from matplotlib.figure import Figure
from typer.testing import CliRunner

from kn_attrib import FactSet, NeuronModel
from kn_attrib.cli.experiment import add_experiment, setting_options
from kn_attrib.errors import ConfigError, FactError, StoreError
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings, Option, Rows
from kn_attrib.evaluation.measure.known_facts import Candidate
from kn_attrib.evaluation.protocols.deletion import DeletionProtocol, DeletionSettings
from kn_attrib.evaluation.protocols.injection import InjectionProtocol, InjectionSettings
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.text import TitledTable

Load = Callable[..., NeuronModel]


@dataclass(frozen=True)
class CountingSettings(ExperimentSettings):
    """Settings of every kind that a command can have."""

    shares: Annotated[tuple[float, ...], Option("Shares, by commas.", "share")] = (0.5, 0.25)
    words: Annotated[tuple[str, ...] | None, Option("A file of words.")] = None
    kind: Annotated[Literal["a", "b"], Option("a or b.")] = "a"
    most: Annotated[int | None, Option("Most; 0 for all.", least=0)] = None
    hidden: int = 3

    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError on another kind than a and b."""
        if self.kind not in ("a", "b"):
            raise ConfigError(f"kind is {self.kind!r}; expected a or b.")


class Counting(Experiment[CountingSettings, Candidate, ProtocolResult]):
    """Scores each fact, and says how many of its prompts there are."""

    name = "counting"
    columns = ("method", "metric")
    measured: list[str]

    def units(self) -> list[Candidate]:
        """The facts."""
        return list(self.selection.targets)

    def measure(self, unit: Candidate) -> Rows:
        """One row per method."""
        self.measured.append(unit.fact.id)
        queries = [query for text in unit.prompts for query in text.queries]
        rows = []
        for method in self.scorers:
            n = len(self.score(method, queries, ()))
            rows.append(
                {"relation": unit.fact.relation, "fact": unit.fact.id, "method": method} | {"metric": "n", "value": n}
            )
        return {"rows": rows, "neurons": []}

    def further(self, rows: Rows) -> dict[str, Any]:
        """What a protocol's manifest has."""
        return {"protocol": self.name}

    def result(self, rows: Rows, manifest: dict[str, Any]) -> ProtocolResult:
        """The rows."""
        return ProtocolResult(self.rows_frame(rows), self.selection.to_frame(), pd.DataFrame(), manifest)


def counting(model: NeuronModel, facts: FactSet, folder: Path | None = None, **settings: Any) -> Counting:
    # Facts count as known whatever a random model answers.
    run = Counting(
        model, facts, ["activation", "random"], CountingSettings(known_share=0.0, **settings), folder, progress=False
    )
    run.measured = []
    return run


def test_every_unit_is_measured_once_and_its_cost_counted(tiny: NeuronModel, facts: FactSet) -> None:
    run = counting(tiny, facts)
    found = run.run()
    assert run.measured == [fact.id for fact in facts]
    assert found.rows.columns.tolist() == ["fact", "relation", "method", "metric", "value"]
    assert found.summary.set_index("method").n.tolist() == [len(facts)] * 2
    activation, random = found.manifest["methods"]
    assert activation["forwards"] == found.rows[found.rows.method == "activation"].value.sum()
    assert random["forwards"] == 0
    assert found.manifest["experiment"] == "counting"
    assert found.manifest["settings"]["shares"] == [0.5, 0.25]


def test_one_fact_is_the_only_target_and_the_others_are_still_there(tiny: NeuronModel, facts: FactSet) -> None:
    run = counting(tiny, facts, fact=facts[2].id, limit=1)
    found = run.run()
    assert run.measured == [facts[2].id]
    assert list(found.facts.status) == ["limit", "limit", "used", "limit"]
    assert len(run.selection.pool) == 4
    with pytest.raises(FactError, match=f"unknown fact 'capital:Frence'. Did you mean {facts[0].id!r}"):
        counting(tiny, facts, fact="capital:Frence")
    unknown = Counting(tiny, facts, ["random"], CountingSettings(known_share=1.01, fact=facts[2].id), progress=False)
    with pytest.raises(FactError, match="nothing: 1 unknown: "):
        raise unknown.select().no_facts("nothing")


def test_a_stopped_run_goes_on_where_it_was(tiny: NeuronModel, facts: FactSet, tmp_path: Path) -> None:
    whole = counting(tiny, facts).run()
    first = counting(tiny, facts, tmp_path)
    measure = first.measure

    def stopped(unit: Candidate) -> Rows:
        if len(first.measured) == 2:
            raise KeyboardInterrupt
        return measure(unit)

    first.measure = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    with pytest.raises(StoreError, match="unfinished run with other settings"):
        counting(tiny, facts, tmp_path, seed=1).run()
    second = counting(tiny, facts, tmp_path)
    found = second.run()
    assert second.measured == [fact.id for fact in facts][2:]
    pd.testing.assert_frame_equal(found.rows, whole.rows)
    assert [m["forwards"] for m in found.manifest["methods"]] == [m["forwards"] for m in whole.manifest["methods"]]
    assert not (tmp_path / "unfinished").exists()
    assert ProtocolResult.load(tmp_path).rows.equals(whole.rows)
    with pytest.raises(StoreError, match="this run is finished: its results are in"):
        counting(tiny, facts, tmp_path)
    with pytest.raises(StoreError, match="holds another run"):
        counting(tiny, facts, tmp_path, seed=1)


def protocols(model: NeuronModel, facts: FactSet, folder: Path | None) -> list[Experiment[Any, Any, ProtocolResult]]:
    inj = InjectionSettings(known_share=1.01, ratios=(0.3,), information="unknown", rate=0.1, steps=40)
    delete = DeletionSettings(known_share=0.0, ratios=(0.05,), sentences=2)
    places = [None, None] if folder is None else [folder / "inj", folder / "del"]
    methods = ["random", "ablation"]
    return [
        InjectionProtocol(model, facts, methods, inj, places[0], progress=False),
        DeletionProtocol(model, facts, methods, delete, places[1], progress=False),
    ]


def _stop_after_one(run: Experiment[Any, Any, ProtocolResult]) -> None:
    measure: Callable[[Any], Rows] = run.measure
    done: list[Any] = []

    def stopped(unit: Any) -> Rows:
        if done:
            raise KeyboardInterrupt
        done.append(unit)
        return measure(unit)

    run.measure = stopped  # type: ignore[method-assign]


def test_published_protocols_go_on_too(session_load_tiny: Load, facts: FactSet, tmp_path: Path) -> None:
    model = session_load_tiny("masked")
    for whole, first, second in zip(
        *(protocols(model, facts, each) for each in (None, tmp_path, tmp_path)), strict=True
    ):
        expected = whole.run()
        _stop_after_one(first)
        with pytest.raises(KeyboardInterrupt):
            first.run()
        found = second.run()
        for name in ProtocolResult.frames:
            pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_settings_become_options_of_their_kind(tmp_path: Path) -> None:
    own = {option.field: option for option in setting_options(CountingSettings)}
    assert list(own) == ["shares", "words", "kind", "most", "limit", "max_prompts", "seed", "fact"]
    defaults = {name: option.parameter().default for name, option in own.items()}
    assert defaults == {
        "shares": "0.5,0.25",
        "words": None,
        "kind": "a",
        "most": 0,
        "limit": 34,
        "max_prompts": 0,
        "seed": 0,
        "fact": "",
    }
    assert own["shares"].name == "share"
    assert own["shares"].value("0.1, 1") == (0.1, 1.0)
    assert own["most"].value(0) is None
    assert own["most"].value(7) == 7
    assert own["seed"].value(0) == 0
    words = tmp_path / "words.txt"
    words.write_text("one\n\ntwo\n")
    assert own["words"].value(words) == ("one", "two")
    assert own["words"].value(None) is None
    with pytest.raises(ConfigError, match="--share is 'x'; expected numbers"):
        own["shares"].value("x")


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(rich_markup_mode=None)

    class Silent(Counting):
        """Counts <b>prompts</b>."""

        measured: list[str] = []  # noqa: RUF012  # as many runs as there are tests

        def tables(self, result: ProtocolResult) -> list[TitledTable]:
            return [*super().tables(result), TitledTable("nothing more")]

        def figures(self, result: ProtocolResult) -> dict[str, CaptionedFigure]:
            figure = Figure(figsize=(3, 2))
            figure.subplots().plot(result.rows.value)
            return {"values": CaptionedFigure(figure, "All values.")}

    add_experiment(made, Silent, CountingSettings, ["activation"], "Count prompts.")
    made.command("other")(lambda: None)  # one command alone would have no name
    return made


def test_a_command_is_made_from_an_experiment(app: typer.Typer, tmp_path: Path) -> None:
    help_text = CliRunner().invoke(app, ["counting", "--help"]).output
    assert "--share" in help_text
    assert "--hidden" not in help_text
    asked = [
        "counting",
        "--model",
        "zoo:gpt2-facts",
        "--limit",
        "2",
        "--max-prompts",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    assert "counting: mean [95 % interval]" in done.output
    assert "activation" in done.output
    assert "nothing more" in done.output
    assert (tmp_path / "run" / "figures" / "values.png").stat().st_size > 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "COUNTING: Counts &lt;b&gt;prompts&lt;/b&gt;." in page
    assert "<figcaption>All values.</figcaption>" in page
    assert "nothing more" in page
    assert "zoo:gpt2-facts (GPT2LMHeadModel, 4 layers" in page
    assert ProtocolResult.load(tmp_path / "run").manifest["settings"]["limit"] == 2
    with pytest.raises(ConfigError, match="kind is 'c'"):
        CliRunner().invoke(app, [*asked, "--kind", "c", "--overwrite"], catch_exceptions=False)
    (tmp_path / "run.yaml").write_text("share: [0.1, 0.2]\nmost: 5\n")
    config = [*asked, "--config", str(tmp_path / "run.yaml"), "--overwrite"]
    assert CliRunner().invoke(app, config, catch_exceptions=False).exit_code == 0
    settings = ProtocolResult.load(tmp_path / "run").manifest["settings"]
    assert settings["shares"] == [0.1, 0.2]
    assert settings["most"] == 5


def test_a_command_that_is_interrupted_says_how_to_go_on(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Counting, "measure", stop)
    asked = ["counting", "--limit", "2", "--max-prompts", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 130
    assert f"kept in {tmp_path}; the same command goes on" in done.stderr
    monkeypatch.undo()
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 0
    assert f"Going on with the unfinished run in {tmp_path}." in again.stderr
