"""``kn-attrib compare``: the main job."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from kn_attrib.cli import modes, options
from kn_attrib.cli.publish import publish, publish_grid
from kn_attrib.errors import ConfigError, KnAttribError
from kn_attrib.evaluation import DEFAULT_METHODS, ComparisonInterrupted, compare
from kn_attrib.evaluation.comparison.grid import Factor, compare_grid
from kn_attrib.evaluation.vocabulary import BASIC, CONTROLS, EVERYWHERE
from kn_attrib.facts.facts import FactSet
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.method_specs import UNITS, expanded
from kn_attrib.scoring.refinement import Refinement
from kn_attrib.store import reason_of

NAME = "compare"
OTHER_UNITS = ", ".join(f"@{kind}" for kind in UNITS)
METHODS = (
    f"Methods separated by commas: name, name:preset or name(param=value), with {OTHER_UNITS} (such as @pca(k=8)) to "
    "score these instead of neurons; 'all' stands for all that score neurons."
)
THRESHOLD = "Of the refinement, in place of the preset's; default: the preset's, or each method's own."
SHARE = "Of the prompts, in the refinement, in place of the preset's; default: the preset's, or 0.7."
INTERVENTIONS = f"Some of {', '.join(BASIC)}, each also as NAME{EVERYWHERE} (commas)."
GRID = (
    "A factor and its levels: METHOD.PARAM=a,b,c or SETTING=a,b,c (threshold, share, refinement, factor, max_prompts, "
    "interventions, normalised); repeat it for factor x factor designs."
)


def command(
    context: typer.Context,
    model: options.Model = "zoo:bert-facts",
    chat: options.Chat = False,
    facts: options.Facts = "world",
    methods: Annotated[str, typer.Option(help=METHODS)] = ",".join(DEFAULT_METHODS),
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    limit: options.Limit = 51,
    max_prompts: Annotated[int, typer.Option(help="Most attribution prompts per fact; 0 for all.", min=0)] = 0,
    budgets: Annotated[str, typer.Option(help="Numbers of neurons for the equal-budget comparison.")] = "1,5,10,20",
    refinement: Annotated[str, typer.Option(help="Preset of the refinement: dai2022 or eleuther.")] = "",
    threshold: Annotated[float | None, typer.Option(help=THRESHOLD)] = None,
    share: Annotated[float | None, typer.Option(help=SHARE)] = None,
    interventions: Annotated[str, typer.Option(help=INTERVENTIONS)] = "suppress,amplify",
    factor: Annotated[float, typer.Option(help="Factor of the amplification.")] = 2.0,
    control_facts: Annotated[int, typer.Option(help="Most facts in each control group.", min=0)] = 5,
    controls: Annotated[
        str, typer.Option(help=f"Control neurons: all, none or some of {', '.join(CONTROLS)}.")
    ] = "all",
    plain_text: Annotated[Path | None, typer.Option(help="File of sentences whose words serve as a control.")] = None,
    curves: Annotated[bool, typer.Option(help="Measure deletion and insertion curves too.")] = False,
    keep: Annotated[str, typer.Option(help="Keep facts that are: unknown, ambiguous, leaking (commas).")] = "",
    normalised: Annotated[bool, typer.Option(help="p(answer) of several tokens: geometric mean, not product.")] = False,
    grid: Annotated[list[str] | None, typer.Option(help=GRID)] = None,
    seed: options.Seed = 0,
    device: options.Device = "",
    dtype: options.Dtype = "float32",
    plugin: options.Plugin = None,
    out: Annotated[Path, typer.Option(help="Folder for rows, figures, report and manifest.")] = Path("runs/compare"),
    overwrite: options.Overwrite = False,
    config: options.Config = None,  # noqa: ARG001  # read before all others, by `read_config`
) -> None:
    """Compare attribution methods on one model and its facts; write table, figures and report.

    Stopped or killed, the same command goes on where it was.

    Example: kn-attrib compare --model zoo:gpt2-facts --methods integrated_gradients,random --limit 24 --out runs/first
    """
    options.prepare(out, overwrite, plugin, finished=not grid)
    chosen = expanded(options.split(methods))
    settings: dict[str, Any] = {
        "overwrite": overwrite,
        "budgets": options.integers("budgets", budgets),
        "refinement": refinement or None,
        "factor": factor,
        "control_facts": control_facts,
        "limit": limit or None,
        "max_prompts": max_prompts or None,
        "keep": options.split(keep),
        "seed": seed,
        "normalised": normalised,
        "threshold": threshold,
        "share": share,
        "interventions": options.split(interventions),
        "controls": _controls(controls),
        "curves": curves,
        "plain_text": None if plain_text is None else options.lines(plain_text),
    }
    factors = _factors(context, grid or (), settings)
    _check_refinement(refinement, threshold, share)
    opened = options.open_model(model, dtype, device, chat)
    some = options.open_facts(facts, relations, answer_words)
    _run(opened, some, chosen, factors, settings, out)


LEVELS: dict[str, tuple[tuple[type, ...], str]] = {
    "threshold": ((int, float), "numbers"),
    "share": ((int, float), "numbers"),
    "factor": ((int, float), "numbers"),
    "max_prompts": ((int,), "whole numbers"),
    "seed": ((int,), "whole numbers"),
    "normalised": ((bool,), "true or false"),
}
"""What the levels of a setting are; of all others, texts, and of a method's parameter any plain value."""


def _factors(context: typer.Context, grid: Sequence[str], settings: dict[str, Any]) -> list[Factor]:
    """The factors of a grid; what they vary is taken out of the settings, and refused where it was given."""
    factors = [_factor(text) for text in grid]
    for each in factors:
        options.refuse(context, each.name, beside=f"--grid {each.name}=…")
        settings.pop(each.name, None)
    return factors


def _factor(text: str) -> Factor:
    """A factor, with levels that are what they shall be and can name a folder."""
    try:
        factor = Factor.parse(text)
    except KnAttribError:
        raise
    # As `yaml_value` says of PyYAML.
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"grid {text!r:.80}: a level cannot be read ({reason_of(error)}).") from error
    of_method = "." in factor.name
    types, expected = LEVELS.get(factor.name, ((bool, int, float, str) if of_method else (str,), "plain values"))
    for level in factor.levels:
        if type(level) not in types:
            raise ConfigError(f"grid {factor.name}: level {reprlib.repr(level)}; expected {expected}.")
        if isinstance(level, str) and (set(level) & {"/", "\\", "\0"} or not level.isprintable()):
            raise ConfigError(
                f"grid {factor.name}: level {level!r:.80}; expected no '/', '\\' or control characters, since each "
                "combination has a folder of that name."
            )
        if factor.name in ("threshold", "share"):
            _check_share(factor.name, level)
    return factor


def _check_share(name: str, value: float) -> None:
    Refinement(threshold=value) if name == "threshold" else Refinement(share=value)


def _check_refinement(preset: str, threshold: float | None, share: float | None) -> None:
    """Neurons are chosen after they are scored, which takes long: what is out of range is said before."""
    if preset:
        Refinement.preset(preset)
    for name, value in (("threshold", threshold), ("share", share)):
        if value is not None:
            _check_share(name, value)


def _controls(text: str) -> list[str]:
    named, whole = options.split(text), {"all": list(CONTROLS), "none": []}
    for name in whole:
        if name in named and len(named) > 1:
            raise ConfigError(f"--controls is {text!r:.80}; {name!r} stands alone: give it, or some names, not both.")
    return whole.get("".join(named), named)


def _run(
    model: NeuronModel,
    facts: FactSet,
    methods: list[str],
    factors: list[Factor],
    settings: dict[str, Any],
    out: Path,
) -> None:
    common: dict[str, Any] = {"folder": out, "progress": modes.progress(), **settings}
    try:
        if factors:
            grid = compare_grid(model, facts, methods, factors, **common)
        else:
            comparison = compare(model, facts, methods, **common)
    except KeyboardInterrupt as interrupt:
        kept = "What was finished is"
        if isinstance(interrupt, ComparisonInterrupted) and not factors:
            rows = interrupt.comparison.rows
            kept = f"{len(rows)} rows of {rows.fact.nunique()} facts"
        typer.echo(f"Interrupted. {kept} kept in {out}; the same command goes on from there.", err=True)
        raise typer.Exit(130) from interrupt
    if factors:
        publish_grid(grid, out)
    else:
        publish(comparison, out)
