"""``kn-attrib benchmark``: methods on facts whose neurons are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import modes, options, screen
from kn_attrib.evaluation.planted.benchmark import benchmark
from kn_attrib.evaluation.planted.figure import heat_map
from kn_attrib.evaluation.planted.page import page
from kn_attrib.evaluation.planted.result import METRICS, PlantedResult
from kn_attrib.evaluation.planted.suite import MODELS, SHIPPED
from kn_attrib.evaluation.records.pages import save_figures
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.store import write_text

NAME = "benchmark"


def command(
    model: Annotated[list[str] | None, typer.Option(help="Model with plants (may be repeated); default all.")] = None,
    methods: Annotated[str, typer.Option(help="Methods separated by commas; 'all' stands for all.")] = "all",
    split: Annotated[str, typer.Option(help="test, development (to tune a method on) or all.")] = "test",
    plants: Annotated[Path | None, typer.Option(help="Folder of plants (default: those of the package).")] = None,
    limit: Annotated[int, typer.Option(help="Most plants of each axis and model; 0 for all.", min=0)] = 0,
    max_prompts: Annotated[int, typer.Option(help="Most attribution prompts per fact.", min=1)] = 4,
    contrast_facts: Annotated[int, typer.Option(help="Further facts for methods that compare facts.", min=0)] = 8,
    seed: options.Seed = 0,
    plugin: options.Plugin = None,
    out: Annotated[Path, typer.Option(help="Folder for rows, tables, figure and manifest.")] = Path("runs/benchmark"),
    overwrite: options.Overwrite = False,
    config: options.Config = None,  # noqa: ARG001  # read before all others, by `read_config`
) -> None:
    """Look for planted neurons with attribution methods; write how well each finds them, by axis of difficulty.

    Example: kn-attrib benchmark --model zoo:gpt2-facts --methods integrated_gradients,random --out runs/planted
    """
    options.prepare(out, overwrite, plugin)
    result = benchmark(
        model or MODELS,
        options.split(methods),
        split=split,
        folder=plants or SHIPPED,
        limit=limit or None,
        max_prompts=max_prompts,
        contrast_facts=contrast_facts,
        seed=seed,
        progress=modes.progress(),
    )
    _publish(result, plants or SHIPPED, out)


def _publish(result: PlantedResult, plants: Path, out: Path) -> None:
    result.save(out, overwrite=True)
    write_text(out / "planted.md", page(result, plants))
    save_figures({"planted": figure_of(heat_map(result.table(), "average_precision"))}, out)
    # The intervals are in the page: a terminal has no room for them in every cell.
    title = "Average precision of planted neurons: means"
    screen.show_frame(result.table().map("{:.2f}".format), title, summary=result.summary)
    screen.say("")
    overall = result.summary[result.summary.axis == "overall"]
    cells = overall.pivot_table(index="method", columns="metric", values="mean")
    screen.show_frame(cells.loc[result.table().index, list(METRICS)].round(3), "All planted facts: means")
    if len(result.methods) > 1:
        tests = result.pairwise()
        title = f"{tests.reference.iloc[0]} minus the others, same planted facts"
        screen.say("")
        screen.show_frame(tests.drop(columns="reference").round(4), title, pairwise=tests)
    files = {"folder": out, "page": out / "planted.md"}
    screen.say(f"\nRows, figure, page (planted.md) and manifest: {out}", files=files)
