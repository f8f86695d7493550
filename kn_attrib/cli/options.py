"""Options that several commands share, and settings from a YAML file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from kn_attrib.errors import ConfigError, FactError, unknown
from kn_attrib.evaluation.records.folder import check_folder
from kn_attrib.evaluation.records.journal import Journal
from kn_attrib.facts.facts import FactSet
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.loading import load_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.registry import load_plugin
from kn_attrib.store import check_writable


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
            f"--{name} is {text!r}; expected whole numbers separated by commas, such as 1,5,10."
        ) from error


def numbers(name: str, text: str) -> list[float]:
    """``"0.01,0.001"`` -> numbers."""
    try:
        return [float(part) for part in split(text)]
    except ValueError as error:
        raise ConfigError(f"--{name} is {text!r}; expected numbers separated by commas, such as 0.01,0.001.") from error


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the text file {path}: {error}.") from error
    if not found:
        raise ConfigError(f"the text file {path} is empty; expected a sentence a line.")
    return found


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of the command's options, so that the command line overrides them."""
    if path is None:
        return None
    content = _content(path)
    optional = {str(p.name) for p in context.command.params if p.default is None}
    known = {str(p.name) for p in context.command.params if p.name not in ("config", "help")}
    repeated = {str(p.name) for p in context.command.params if getattr(p, "multiple", False)}
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ConfigError(f"--config {path}: {unknown('setting', str(key), known)}")
        if value is None and name not in optional:
            raise ConfigError(f"--config {path}: {key} has no value; give one, or leave it out.")
        if name == "grid" and isinstance(value, dict):
            defaults[name] = [f"{factor}={','.join(map(str, levels))}" for factor, levels in value.items()]
        elif name in repeated:
            defaults[name] = value if isinstance(value, list) else [value]
        else:
            defaults[name] = ",".join(map(str, value)) if isinstance(value, list) else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


class _OnceEach(yaml.SafeLoader):
    """YAML whose keys are given once: the last of two would hide the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key, n in Counter(map(str, keys)).items() if n > 1]
        if twice:
            raise ConfigError(f"{twice[0]} is given twice.")
        return super().construct_mapping(node, deep)


def _content(path: Path) -> dict[Any, Any]:
    try:
        # A safe loader, of keys that are given once.
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_OnceEach)
    except RecursionError as error:
        raise ConfigError(f"cannot read --config {path}: nested too deep.") from error
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read --config {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} holds {type(content).__name__}; expected keys and values.")
    return content


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


def prepare(out: Path, overwrite: bool, plugin: list[str] | None = None) -> None:
    """Before anything is computed: the folder can be written to, and plug-ins are loaded."""
    check_writable(check_folder(out, overwrite))
    plugins(plugin)
    if not overwrite and Journal(out).started:
        typer.echo(f"Going on with the unfinished run in {out}.", err=True)


def plugins(paths: list[str] | None) -> None:
    """Load plug-in files."""
    for path in paths or ():
        load_plugin(path)


def open_model(source: str, dtype: str, device: str, chat: bool = False) -> NeuronModel:
    """`load_model` with the command line's empty text for "no device given"."""
    return load_model(source, dtype=dtype, device=device or None, chat=chat)


def open_facts(source: str, relations: str, answer_words: int = 0) -> FactSet:
    """`load_facts`, restricted to relations if any are named, and to answers of so many words."""
    facts = load_facts(source)
    facts = facts.of(*split(relations)) if relations else facts
    if not answer_words:
        return facts
    chosen = facts.where(lambda fact: len(fact.answer.split()) == answer_words)
    if not chosen:
        raise FactError(f"none of the {len(facts)} facts has an answer of {answer_words} words; try --answer-words 1.")
    return chosen
