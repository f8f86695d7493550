"""Commands made from experiments: their settings are the options, their tables what is printed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from kn_attrib.cli import modes, options, screen
from kn_attrib.cli.modes import parameter, signed, with_modes
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings, Option
from kn_attrib.evaluation.records.text import TitledTable, markdown

COMMON = (
    ("chat", options.Chat, False),
    ("relations", options.Relations, ""),
    ("answer_words", options.AnswerWords, 0),
    ("device", options.Device, ""),
    ("dtype", options.Dtype, "float32"),
    ("plugin", options.Plugin, None),
    ("overwrite", options.Overwrite, False),
    ("markdown", options.Markdown, False),
    ("config", options.Config, None),
)
"""Name, annotation and default of the options that every experiment has, beside model, facts, methods and folder."""


@dataclass(frozen=True)
class SettingOption:
    """One setting as an option of a command.

    Parameters
    ----------
    field, hint, default : of the setting.
    option : what is said of it.
    """

    field: str
    hint: Any
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """What the option is called."""
        return self.option.name or self.field

    @property
    def _kind(self) -> Any:
        """The setting's type without ``None``; ``str`` for one of several words."""
        kinds = [kind for kind in get_args(self.hint) if kind is not NoneType] if self._optional else [self.hint]
        return str if get_origin(kinds[0]) is Literal else kinds[0]

    @property
    def _optional(self) -> bool:
        return NoneType in get_args(self.hint)

    @property
    def _is_words(self) -> bool:
        """Several of some words."""
        kind = self._kind
        return get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal

    def parameter(self) -> inspect.Parameter:
        """The command's parameter: lists are text with commas or a file of lines, 0 stands for no number."""
        kind, default = self._kind, self.default
        if kind == tuple[str, ...]:
            kind = Path | None
        elif self._is_words:
            kind, default = str, ",".join(default)
        elif get_origin(kind) is tuple:
            kind, default = str, ",".join(f"{each:g}" for each in default)
        elif self._optional:
            default = default or 0
        return parameter(
            self.name, Annotated[kind, typer.Option(help=self.option.help, min=self.option.least)], default
        )

    def value(self, given: Any) -> Any:
        """The setting, from what the command was given."""
        if self._kind == tuple[str, ...]:
            return None if given is None else tuple(options.lines(given))
        if self._is_words:
            return tuple(options.split(given))
        if get_origin(self._kind) is tuple:
            return tuple(options.numbers(self.name, given))
        return None if self._optional and not given else given


def setting_options(settings: type[ExperimentSettings]) -> list[SettingOption]:
    """The options of some settings: the experiment's own first, then those that every experiment has."""
    hints = get_type_hints(settings, include_extras=True)
    shared = {field.name for field in fields(ExperimentSettings)}
    found = []
    for field in sorted(fields(settings), key=lambda field: field.name in shared):
        kind, *extras = get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (None,)
        found += [SettingOption(field.name, kind, field.default, each) for each in extras if isinstance(each, Option)]
    return found


def add_experiment(
    app: typer.Typer,
    experiment: type[Experiment[Any, Any, Any]],
    settings: type[ExperimentSettings],
    methods: Sequence[str],
    help: str,
    model: str = "zoo:gpt2-facts",
) -> None:
    """Add an experiment's command.

    Parameters
    ----------
    methods : run by default.
    help : what the command says of itself.
    model : run on by default.
    """
    own = setting_options(settings)
    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        parameter("model", options.Model, model),
        parameter("facts", options.Facts, "world"),
        parameter("methods", options.NeuronMethods, ",".join(methods)),
        *(each.parameter() for each in own),
        parameter("out", options.RowsOut, Path("runs") / experiment.name),
        *(parameter(*each) for each in COMMON),
    ]

    def command(**given: Any) -> None:
        out: Path = given["out"]
        if given["fact"]:
            options.refuse(given["context"], "limit", beside="--fact")
        chosen = settings(**{each.field: each.value(given[each.name]) for each in own})
        options.prepare(out, given["overwrite"], given["plugin"], finished=True)
        run = experiment(
            options.open_model(given["model"], given["dtype"], given["device"], given["chat"]),
            options.open_facts(given["facts"], given["relations"], given["answer_words"]),
            options.split(given["methods"]),
            chosen,
            out,
            given["overwrite"],
            progress=modes.progress(),
        )
        result = _finished(run)
        screen.give(summary=result.summary)
        for titled in run.tables(result):
            _show(titled, given["markdown"])
        files = {"folder": out, "report": run.publish(result, out)}
        screen.say(f"Rows, figures and manifest: {out}\nReport: {files['report']}", files=files)

    app.command(experiment.name, help=help)(with_modes(signed(command, parameters)))


def _finished(run: Experiment[Any, Any, Any]) -> Any:
    try:
        return run.run()
    except KeyboardInterrupt as interrupt:
        where = run.journal.folder
        typer.echo(f"Interrupted. What was finished is kept in {where}; the same command goes on from there.", err=True)
        raise typer.Exit(130) from interrupt


def _show(titled: TitledTable, as_markdown: bool) -> None:
    title, table = titled
    with screen.part("tables"):
        screen.give(title=title, rows=table)
    if table is None:
        screen.say(f"{title}\n")
    elif as_markdown:
        screen.say(f"{title}\n\n{markdown(table)}\n")
    else:
        screen.show_frame(table, title)
        screen.say("")
