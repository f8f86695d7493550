"""`compare`: every method on the same facts, judged by interventions on held-out paraphrases and controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kn_attrib.errors import ConfigError, listed
from kn_attrib.evaluation.comparison.run import ComparisonInterrupted, Run
from kn_attrib.evaluation.comparison.settings import Settings
from kn_attrib.evaluation.records.folder import open_folder
from kn_attrib.evaluation.report.comparison import Comparison
from kn_attrib.evaluation.vocabulary import CONTROLS
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.loading import load_facts
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.randomness import checked_seed
from kn_attrib.scoring.method_specs import Method, labelled, make_method
from kn_attrib.scoring.scorer import Scorer

__all__ = ["DEFAULT_METHODS", "ComparisonInterrupted", "compare"]

DEFAULT_METHODS = (
    "integrated_gradients",
    "layer_conductance",
    "layer_integrated_gradients",
    "gradient_x_activation",
    "ablation",
    "activation",
    "random",
)


@torch_defaults()
def compare(
    model: NeuronModel,
    facts: str | Path | Sequence[Fact],
    methods: Sequence[str | type[Scorer] | Scorer | Method] = DEFAULT_METHODS,
    *,
    budgets: Sequence[int] = (1, 5, 10, 20),
    refinement: str | None = None,
    factor: float = 2.0,
    control_facts: int = 5,
    limit: int | None = None,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    keep: Sequence[str] = (),
    seed: int = 0,
    max_rows: int = 1024,
    normalised: bool = False,
    contrast_facts: int = 8,
    interventions: Sequence[str] = ("suppress", "amplify"),
    controls: Sequence[str] = CONTROLS,
    threshold: float | None = None,
    share: float | None = None,
    dropout: Sequence[float] = (0.01, 0.1),
    plain_text: Sequence[str] | None = None,
    curves: bool = False,
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Comparison:
    """Compare attribution methods on suppression and amplification, against control groups and control neurons.

    For every fact that the model knows, each method scores all neurons on the fact's ``prompts``; its refined set and
    its top ``k`` are then suppressed (×0) and amplified (×``factor``) at the answer position, and the change of the
    answer's probability is measured on the fact's ``held_out`` paraphrases, on four groups of control facts and on
    plain words, next to what control neurons do.

    Parameters
    ----------
    model : from `load_model`.
    facts : anything `load_facts` reads; facts beyond ``limit`` still serve as controls.
    methods : names, ``"name:preset"``, classes or scorers; ``"name@nmf"``, ``"name@pca(k=8)"``, ``"name@heads"`` score
        other units than neurons (see `kn_attrib.scoring.method_specs`), and skip budgets larger than their number.
    budgets : numbers of neurons for the equal-budget comparison.
    refinement : a preset name, default the paper's thresholds with each method's own threshold.
    factor : amplification.
    control_facts : most facts in each control group of a fact.
    limit : most facts to score.
    max_prompts : most attribution prompts per fact.
    known_share : a fact is known if its answer is on top in at least this share of its attribution prompts.
    keep : facts to keep although ``"unknown"``, ``"ambiguous"`` or ``"leaking"`` (answer inside the subject).
    seed : of control facts, control neurons and bootstrap.
    max_rows : most queries in one forward pass (an answer of several tokens is several queries).
    normalised : an answer's probability is the geometric mean of its tokens' probabilities instead of their product.
    contrast_facts : further known facts of each relation for methods that compare facts with one another.
    interventions : some of `vocabulary.INTERVENTIONS`: ``"suppress"`` (×0), ``"amplify"``, ``"mean"`` (the mean over
        other facts of the relation), ``"resample"`` (another fact's activation), each also as ``"…_everywhere"``.
    controls : some of `vocabulary.CONTROLS`, neurons that each method's are compared with. All are measured for refined
        sets; the random ones at equal budgets too.
    threshold, share : of the refinement, where they shall differ from the preset's or the method's own.
    dropout : shares of all neurons that are silenced at random, for comparison.
    plain_text : sentences whose words are asked for as a control; default: those of other facts.
    curves : measure deletion and insertion curves too (see `curves`), for methods that score neurons.
    folder : where finished work is kept as the run goes on, and the comparison is saved in the end. Killed at any
        moment, the same call with the same folder goes on and gives the same rows.
    overwrite : start anew, whatever the folder holds.
    progress : show progress bars.

    Returns
    -------
    Comparison with flat rows ``(fact, method, selection, neurons, intervention, group, metric, value)``; how they read
    is said in `vocabulary`.

    Raises
    ------
    ConfigError : a setting is out of range, of another kind, or can have no effect beside the others.
    NeuronError : a budget is larger than the model.
    StoreError : ``folder`` holds something else: a finished run, or an unfinished one with other settings.
    MethodError : a method is unknown or faulty, or cannot score the units that it is asked for.
    FactError : no fact can be judged (the reasons are counted).
    ComparisonInterrupted : on Ctrl-C, holding what was finished.
    """
    check_model(model)
    settings = Settings(
        budgets=listed("budgets", budgets),
        refinement=refinement,
        factor=factor,
        control_facts=control_facts,
        limit=limit,
        max_prompts=max_prompts,
        known_share=known_share,
        keep=listed("keep", keep),
        seed=checked_seed(seed),
        max_rows=max_rows,
        normalised=normalised,
        contrast_facts=contrast_facts,
        interventions=listed("interventions", interventions),
        controls=listed("controls", controls),
        threshold=threshold,
        share=share,
        dropout=listed("dropout", dropout),
        plain_text=None if plain_text is None else listed("plain_text", plain_text),
        curves=curves,
    )
    settings.check(model)
    asked = labelled([make_method(method) for method in listed("methods", methods)])
    if curves and all(method.units is not None for method in asked.values()):
        raise ConfigError(
            f"curves are of methods that score neurons, and {', '.join(asked)} score other units; name one that scores "
            "neurons too, or leave curves out."
        )
    run = Run(model, load_facts(facts), asked, settings, progress)
    run.journal = open_folder(folder, overwrite, run.identity)
    return _executed(run)


def _executed(run: Run) -> Comparison:
    """The result of a run, saved where the run has a folder; what an interrupted one has finished is saved too."""
    folder = run.journal.folder
    if folder is None:
        return run.execute()
    try:
        comparison = run.execute()
    except ComparisonInterrupted as interrupt:
        interrupt.comparison.save(folder, overwrite=True)
        raise
    comparison.save(folder, overwrite=True)
    run.journal.close()
    return comparison
