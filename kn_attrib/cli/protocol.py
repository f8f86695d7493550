"""``kn-attrib protocol inj | del``: two published benchmarks of methods."""

from __future__ import annotations

import typer

from kn_attrib.cli.experiment import add_experiment
from kn_attrib.evaluation.protocols import deletion, injection

NAME = "protocol"
app = typer.Typer(
    help="Published benchmarks: facts injected into known neurons (inj), memorised facts deleted (del).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
add_experiment(
    app,
    injection.InjectionProtocol,
    injection.InjectionSettings,
    injection.METHODS,
    """INJ: inject new facts into random value vectors and see which methods find them.

    Example: kn-attrib protocol inj --methods slimming,ablation,random --ratio 0.01,0.001 --limit 17 --out runs/inj
    """,
)
add_experiment(
    app,
    deletion.DeletionProtocol,
    deletion.DeletionSettings,
    deletion.METHODS,
    """DEL: drop each layer's top neurons and see whether the fact is forgotten, and nothing else.

    Example: kn-attrib protocol del --methods slimming,ablation,random --ratio 0.001,0.005 --limit 17 --out runs/del
    """,
)
