"""``kn-attrib report``: figures, report and leaderboard of saved comparisons, from their rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import options, screen
from kn_attrib.cli.publish import publish
from kn_attrib.errors import ConfigError, KnAttribError, StoreError
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.report.leaderboard import leaderboard_page
from kn_attrib.store import check_new_file

NAME = "report"


def command(
    context: typer.Context,
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders that comparisons were written to.")
    ],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of equal budgets as Markdown instead.")
    ] = False,
    leaderboard: Annotated[Path | None, typer.Option(help="JSON file to write the leaderboard to as well.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Folder to write the tables to as well, as a dataset.")] = None,
    license: Annotated[str, typer.Option(help="Licence for the dataset's card, such as cc-by-4.0.")] = "",
    overwrite: Annotated[bool, typer.Option(help="Write over the leaderboard and the dataset.")] = False,
) -> None:
    """Draw the figures and write the report of saved comparisons again, and print their tables.

    Example: kn-attrib report runs/demo --leaderboard demo.json --dataset runs/dataset
    """
    exports = [each for each in (leaderboard, dataset) if each is not None]
    if exports and len(folders) > 1:
        raise ConfigError(f"{len(folders)} folders are given; expected one with --leaderboard or --dataset.")
    if dataset is None:
        options.refuse(context, "license", without="--dataset")
    if not exports:
        options.refuse(context, "overwrite", without="--leaderboard or --dataset")
    comparisons = [_loaded(folder) for folder in folders]
    with _readable(folders):
        _export(comparisons[0], leaderboard, dataset, license, overwrite)
    if markdown:
        with _readable(folders):
            typer.echo(leaderboard_page(comparisons), nl=False)
        return
    for comparison, folder in zip(comparisons, folders, strict=True):
        with _readable([folder]), screen.part("comparisons"):
            publish(comparison, folder)


def _export(
    comparison: Comparison, leaderboard: Path | None, dataset: Path | None, license: str, overwrite: bool
) -> None:
    """Write what is asked for, or nothing where one of them may not be written."""
    if leaderboard is not None:
        check_new_file(leaderboard, overwrite)
    if dataset is not None:
        comparison.export_dataset(dataset, license or None, overwrite)
    if leaderboard is not None:
        comparison.export_leaderboard(leaderboard, overwrite)


def _loaded(folder: Path) -> Comparison:
    comparison = Comparison.load(folder)
    if comparison.rows.empty:
        raise StoreError(f"{folder} holds a comparison of which nothing is measured yet; go on with it, then report.")
    return comparison


@contextmanager
def _readable(folders: list[Path]) -> Iterator[None]:
    """Rows that are readable but do not belong together are answered, not shown as a fault of the program."""
    try:
        yield
    except KnAttribError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"the comparison in {', '.join(map(str, folders))} cannot be reported: its tables and its manifest do not "
            f"belong together ({error!r}); run kn-attrib compare again."
        ) from error
