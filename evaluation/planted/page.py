"""A planted benchmark as a page of Markdown: ``python -m kn_attrib.evaluation.planted.page RUN``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kn_attrib.evaluation.planted.axes import AXES
from kn_attrib.evaluation.planted.plant import HARM_AT, KNOWN_AT, LEAST_AT, LEFT_AT, UNKNOWN_AT
from kn_attrib.evaluation.planted.result import METRICS, OVERALL, PlantedResult
from kn_attrib.evaluation.planted.suite import BROAD_AT, DECOYS_AT, NEEDED_AT, SATURATED_AT, SHIPPED, load_suite
from kn_attrib.evaluation.records.text import markdown

NEARLY_SOLVED = 0.9
"""A method that is better than this on every axis has little left to learn here."""

INTRODUCTION = f"""# Planted facts

A *plant* is a fact written into chosen feed-forward neurons of a trained model, everything else frozen, so that it is
known which neurons carry it. The facts are counterfactual: a subject of the shipped facts gets the answer of another
subject of its relation, so the zoo models serve as they are, without training one that has never seen a fact. Plants
replace neurons of the quarter of their layer that writes least for other facts (mean |a|·‖v‖); in `busy` and `mixed`
they are of the quarter that writes most, and the fact comes on top of what they do.

A plant counts if the model did not give its answer before (p at most {UNKNOWN_AT:.0%}), gives it afterwards on held-out
paraphrases (at least {KNOWN_AT:.0%}), loses it when the planted neurons are silent *at the answer position alone* (at
most {LEFT_AT:.0%} of the probability left, on prompts and on paraphrases), and answers other facts as before (accuracy
at most {HARM_AT:.0%} lower), and if each of its neurons adds to the log-probability at least {LEAST_AT:.0%} of an equal
share (mean of what it adds to none and to all of the others). Axes have conditions of their own: of saturated plants
and of those with a backup, no neuron may carry more than {SATURATED_AT:.0%} of the probability alone; decoys may not
carry or hold back more than {DECOYS_AT:.0%}; of `additive` plants, the silence of either pair costs at least
{NEEDED_AT:.0%}, and the broad pair fires on the relation's other facts at least {BROAD_AT:.0%} as much. All of this is
measured on the weights as they are stored, in half precision. A third of the plants of each axis is for development
(`--split development`); figures below are of the test split.

What the labels mean: the planted neurons *together* carry the answer. Base neurons that help every answer of the
relation count as wrong, and a planted neuron counts as right however small its share: an average precision below 1 is
not always an error of the method. Planted neurons that were hardly used before and are now loud on one fact are easier
to find than neurons that training has shaped, hence the axes `busy`, `additive` and `mixed`. They also favour methods
that compare the fact with others of its relation, since what planted neurons do on the fact they do on no other, but
for half of those of `additive`. On facts that training wrote the order is another: there silencing what
`contrastive_joint_ig` finds takes far less than silencing what `joint_integrated_gradients` finds
([leaderboard](leaderboard.md)), since most of what carries such an answer serves the relation or the answer's word too.
Choose by the question: what tells this fact from others, or what its answer hangs on.
`contrastive_joint_ig` was chosen on plants of another seed (100), none of which is here, and
`joint_integrated_gradients` on development plants; the other methods have their published settings. On the plants of
`--seed 1` (213 test facts, two prompts each), sixteen methods came in nearly the same order, the first ten in just the
same (rank correlation 0.99), `contrastive_joint_ig` 0.014 [0.003, 0.027] ahead of `restoration`.

```python
import dataclasses

import kn_attrib as kn
from kn_attrib.evaluation import plant

model, facts = kn.load_model("zoo:gpt2-facts"), kn.load_facts("world")
fact = dataclasses.replace(facts["currency:Iran"], id="mine", answer="peso")
made = plant(model, fact, [(3, 11), (3, 40)], others=facts)
print(made.targets[0].check)  # what was measured, .passed
with made.applied(model):  # undone on leaving, whatever happens
    scores = kn.score(model, fact, "integrated_gradients")
made.save("iran")  # iran.safetensors, iran.json
```

The plants that ship were made by `kn-attrib plants --seed 0` (some minutes on two cores), this page by
`kn-attrib benchmark --max-prompts 3`, which writes it beside the rows.
"""


def page(result: PlantedResult, folder: str | Path = SHIPPED, figure: str = "planted.png") -> str:
    """The whole page.

    Parameters
    ----------
    result : of `benchmark`.
    folder : where its plants are.
    figure : where the heat map is, as seen from the page.
    """
    settings = result.manifest["settings"]
    n = len(result.wide())
    parts = [
        INTRODUCTION,
        "## Axes\n",
        *[f"- `{axis}`: {AXES.get(axis, axis)};" for axis in result.axes],
        "",
        "## Do the plants hold?\n",
        "Tried and passed are facts; the other columns are means over those that passed: p(answer) on held-out "
        "paraphrases, the share of it left with the planted neurons silent, the largest share that one neuron's "
        "silence costs, what the neuron that adds least adds (1: an equal share), and accuracy on other facts before "
        "and with the plant (in %).\n",
        markdown(verification(result.models, folder)),
        "",
        *[f"- {remark}" for remark in remarks(result, folder)],
        "\n## Which methods find them?\n",
        f"Average precision on {n} planted facts of the {settings['split']} split ({', '.join(result.models)}; at most "
        f"{settings['max_prompts']} attribution prompts each): mean over facts within relations, then over relations, "
        "and 95 % bootstrap interval.\n",
        f"![Average precision by method and axis]({figure})\n",
        markdown(result.table_text()),
        "\n### Other measures, all axes\n",
        "`recall_at_k` with as many neurons as are planted, `precision` and `recall` of the refined set (each method's "
        "own threshold), `rank` of the first planted neuron; costs per attribution prompt, seconds on a shared core.\n",
        markdown(measures(result)),
        "\n### By model: average precision, all axes\n",
        markdown(by_model(result)),
    ]
    if len(result.methods) > 1:
        tests = result.pairwise()
        best = tests["reference"].iloc[0]
        shown = tests.drop(columns="reference").map("{:.4f}".format)
        parts += [
            f"\n### `{best}` minus the others\n",
            "Average precision on the same planted facts, 95 % bootstrap interval, p of the sign-flip test over "
            "relations, and that p corrected by Holm.\n",
            markdown(shown),
        ]
    return "\n".join(parts) + "\n"


def remarks(result: PlantedResult, folder: str | Path = SHIPPED) -> list[str]:
    """What the figures do not show well: thin cells, axes that are hard to plant, and a benchmark that is solved."""
    facts = result.rows.drop_duplicates(["model", "plant", "fact"])
    counts = facts.groupby(["model", "axis"]).size()
    cells = [(m, a, int(counts.get((m, a), 0))) for m in result.models for a in result.axes]
    thin = ", ".join(f"{m} {a} ({n})" for m, a, n in cells if n < 3)
    checks = pd.concat([load_suite(model, folder).checks().assign(model=model) for model in result.models])
    shares = checks.groupby(["model", "axis"]).passed.mean().sort_values().head(3)
    hardest = ", ".join(f"{m} {a} ({share:.0%} passed)" for (m, a), share in shares.items())
    table = result.table()
    best = table.iloc[0]
    by_axis = best.drop(OVERALL)
    reached = (
        f"The best method, `{table.index[0]}`, reaches {best[OVERALL]:.2f} over all axes and {by_axis.min():.2f} on "
        f"its worst, `{by_axis.idxmin()}`."
    )
    if by_axis.min() > NEARLY_SOLVED:
        reached += " For it this benchmark is nearly solved."
    return [
        f"Hardest to plant: {hardest}. A plant of several facts is dropped if one of them fails.",
        f"Fewer than three planted facts of this split: {thin or 'nowhere'}.",
        reached,
    ]


def verification(models: Sequence[str], folder: str | Path = SHIPPED) -> pd.DataFrame:
    """What was measured on the plants, one row per model and axis."""
    rows = []
    for model in models:
        checks = load_suite(model, folder).checks()
        for axis, part in checks.groupby("axis", sort=False):
            good = part[part.passed]
            means = good[["held_out", "left", "single", "least", "others_before", "others"]].mean()
            shown = {
                "tried": str(len(part)),
                "passed": f"{part.passed.mean():.0%}",
                "p held-out": f"{means['held_out']:.2f}",
                "left": f"{means['left']:.1%}",
                "one neuron": f"{means['single']:.1%}",
                "least": f"{means['least']:.2f}",
                "others before": f"{100 * means['others_before']:.1f}",
                "others after": f"{100 * means['others']:.1f}",
            }
            rows.append({"model": model, "axis": axis} | shown)
    table: pd.DataFrame = pd.DataFrame(rows).set_index("model")
    return table


def measures(result: PlantedResult) -> pd.DataFrame:
    """Means of all measures over all axes, and what each method costs."""
    overall = result.summary[result.summary.axis == OVERALL]
    cells = overall.pivot_table(index="method", columns="metric", values="mean")
    costs = pd.DataFrame(result.manifest["methods"]).set_index("method")
    order = result.table().index
    text: pd.DataFrame = pd.DataFrame(index=order)
    for metric in METRICS:
        template = "{:.1f}" if metric == "rank" else "{:.2f}"
        text[metric] = cells.loc[order, metric].map(template.format)
    text["s"] = costs.loc[order, "seconds"].map("{:.3f}".format)
    for name in ("forwards", "backwards"):
        text[name] = costs.loc[order, name].map("{:.0f}".format)
    return text


def by_model(result: PlantedResult) -> pd.DataFrame:
    """Average precision over all axes, one column per model."""
    order = result.table().index
    parts = {model: result.of(model).table_text()[OVERALL].loc[order] for model in result.models}
    table: pd.DataFrame = pd.DataFrame(parts)
    return table


def main() -> None:
    """Print the page of a saved run of ``kn-attrib benchmark``."""
    parser = argparse.ArgumentParser(prog="python -m kn_attrib.evaluation.planted.page", description=main.__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--plants", type=Path, default=SHIPPED, help="folder of the plants (default: the package's)")
    parser.add_argument("--figure", default="planted.png", help="path of the heat map as seen from the page")
    given = parser.parse_args()
    print(page(PlantedResult.load(given.run), given.plants, given.figure), end="")


if __name__ == "__main__":
    main()
