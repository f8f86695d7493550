"""Options that several commands share, and settings from a YAML file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli.config import read_config
from kn_attrib.errors import ConfigError, FactError, KnAttribError, ModelError
from kn_attrib.evaluation.records.folder import check_folder
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.loading import load_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import load_plugin
from kn_attrib.store import check_writable, reason_of, shown


def split(text: str) -> list[str]:
    """``"a, b(x=1, y=2), c"`` -> its parts; commas inside brackets do not separate."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def integers(name: str, text: str) -> list[int]:
    """``"1,5,10"`` -> numbers."""
    try:
        return [int(part) for part in split(text)]
    except ValueError as error:
        raise ConfigError(
            f"--{name} is {text!r:.80}; expected whole numbers separated by commas, such as 1,5,10."
        ) from error


def numbers(name: str, text: str) -> list[float]:
    """``"0.01,0.001"`` -> numbers."""
    try:
        found = [float(part) for part in split(text)]
        if not all(map(math.isfinite, found)):
            raise ValueError("not finite")
        return found
    except ValueError as error:
        raise ConfigError(
            f"--{name} is {text!r:.80}; expected numbers separated by commas, such as 0.01,0.001."
        ) from error


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no name of a file
        raise ConfigError(f"cannot read the text file {shown(path)}: {error}; expected UTF-8 text.") from error
    if not found:
        raise ConfigError(f"the text file {path} is empty; expected a sentence a line.")
    return found


Model = Annotated[str, typer.Option(help="zoo:NAME, a Hugging Face id, or a local folder.")]
Facts = Annotated[str, typer.Option(help="'world' (shipped), a .jsonl file, a .json file or a folder.")]
Relations = Annotated[str, typer.Option(help="Only these relations, separated by commas.")]
AnswerWords = Annotated[int, typer.Option(help="Only facts whose answer has this many words; 0 for all.", min=0)]
Limit = Annotated[int, typer.Option(help="Most facts, taken from the relations in turn; 0 for all.", min=0)]
NeuronMethods = Annotated[
    str, typer.Option(help="Methods separated by commas: name, name:preset or name(param=value).")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="Torch device; default: CUDA if there is one, else CPU.")]
Dtype = Annotated[str, typer.Option(help="float32, float64, float16 or bfloat16.")]
Chat = Annotated[
    bool, typer.Option("--chat", help="Put texts to the model through its chat template; the assistant answers.")
]
Plugin = Annotated[list[str] | None, typer.Option(help="Python file that registers scorers (may be repeated).")]
Overwrite = Annotated[bool, typer.Option(help="Write over what the folder holds.")]
RowsOut = Annotated[Path, typer.Option(help="Folder for rows and manifest.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with these options as keys; the command line overrides it.", callback=read_config, is_eager=True
    ),
]


def given(context: typer.Context, option: str) -> bool:
    """Whether an option was given, on the command line or in a --config file."""
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def refuse(context: typer.Context, *options: str, without: str = "", beside: str = "") -> None:
    """Raise on options that were given and change nothing without another one, or beside it.

    Parameters
    ----------
    options : named as the command's parameters.
    without, beside : the other option; one of the two.

    Raises
    ------
    ConfigError : one was given; it is named.
    """
    for option in options:
        if given(context, option):
            name = f"--{option.replace('_', '-')}"
            do = f"give {without} too, or leave it out" if without else "leave one of them out"
            where = f"without {without}" if without else f"beside {beside}"
            raise ConfigError(f"{name} changes nothing {where}; {do}.")


def prepare(out: Path, overwrite: bool, plugin: list[str] | None = None, finished: bool = False) -> None:
    """Before anything is computed: the folder can be written to, and plug-ins are loaded.

    Parameters
    ----------
    finished : whether the run itself refuses a folder with a finished one, since it can say whether that is the same.
    """
    check_writable(check_folder(out, overwrite, finished=finished))
    plugins(plugin)


def plugins(paths: list[str] | None) -> None:
    """Load plug-in files."""
    for path in paths or ():
        load_plugin(path)


def open_model(source: str, dtype: str, device: str, chat: bool = False, ffn_pattern: str = "") -> NeuronModel:
    """`load_model` with the command line's empty text for what is not given."""
    try:
        return load_model(source, dtype=dtype, device=device or None, chat=chat, ffn_pattern=ffn_pattern or None)
    except KnAttribError:
        raise
    except (OSError, ValueError, LookupError, AttributeError) as error:  # no name of a file; no pattern of a path
        pattern = f" with --ffn-pattern {ffn_pattern!r}" if ffn_pattern else ""
        raise ModelError(
            f"model {source!r:.200}{pattern} cannot be opened: {reason_of(error)}; expected zoo:NAME, a Hugging Face "
            "id or a folder."
        ) from error


def open_facts(source: str, relations: str, answer_words: int = 0) -> FactSet:
    """`load_facts`, restricted to relations if any are named, and to answers of so many words."""
    facts = load_facts(source)
    if relations:
        names = split(relations)
        if not names:
            raise ConfigError(f"--relations is {relations!r}; expected names separated by commas, or nothing for all.")
        facts = facts.of(*names)
    if not answer_words:
        return facts
    chosen = facts.where(lambda fact: len(fact.answer.split()) == answer_words)
    if not chosen:
        raise FactError(f"none of the {len(facts)} facts has an answer of {answer_words} words; try --answer-words 1.")
    return chosen
