"""What is in the tables that the package returns and writes, column by column."""

from __future__ import annotations

from kn_attrib.evaluation.records.columns import Column, Table, interval
from kn_attrib.evaluation.records.tables_of_firing import FIRING
from kn_attrib.evaluation.records.tables_of_reading import READING
from kn_attrib.evaluation.records.tables_of_tracing import TRACING

FACT = Column("fact", "text", "id", "the fact")
RELATION = Column("relation", "text", "id", "its relation")
METHOD = Column("method", "text", "label", "the method whose neurons these are, as it was asked for")
LAYER = Column("layer", "integer", "from 0", "the neuron's layer; 0 is next to the embeddings")
NEURON = Column("neuron", "integer", "from 0", "its index in that layer; with other units than neurons, the unit's")
METRIC = Column("metric", "text", "name", "what the value is")
RATIO = Column("ratio", "number", "above 0, up to 1", "share of the neurons that were injected into or dropped")
PLANT = Column("plant", "text", "name", "the plant that holds the fact")
AXIS = Column("axis", "text", "name", "axis of difficulty that the plant is of")
TRUTH = Column("truth", "text", "all, changed, speaking", "which of the neurons injected into count as right")
SCOPE = Column("scope", "text", "layer, model", "whether the top k are of each layer or of the whole model")
K = Column("k", "number", "above 0, up to 1", "share of the neurons that a ranking is cut off at")


MEAN = (
    Column("mean", "number", "as the metric", "mean over facts within relations, then over relations"),
    *interval(),
    Column("n", "number", "facts", "how many facts the mean is over"),
)
CELL = (
    METHOD,
    Column("selection", "text", "refined, specific, k=…, share=…, all, layer …", "how neurons were taken from scores"),
    Column("neurons", "text", "method, or a control's name", "the method's own, or control neurons in their place"),
    Column("intervention", "text", "suppress, amplify, mean, resample, …_everywhere, delete, keep", "what was done"),
    Column("group", "text", "target, or a control group's name", "which texts were asked"),
    METRIC,
)
ROWS = (
    FACT,
    RELATION,
    *CELL[:3],
    Column("n_neurons", "integer", "neurons", "how many were changed"),
    *CELL[3:5],
    Column("n_prompts", "integer", "texts", "how many were asked"),
    METRIC,
    Column(
        "value",
        "number",
        "p: 0 to 1; changes: from −1; delta_logprob: nats; perplexities, ranks: from 1; flip: 0 to 1",
        "the number; what each metric is, the page on evaluation says",
    ),
)
ASKED = (
    FACT,
    RELATION,
    Column("subject", "text", "words", "its subject"),
    Column("answer", "text", "words", "its answer"),
    Column("status", "text", "used, unusable, unknown, ambiguous, leaking, limit", "whether it is judged, or why not"),
    Column("held_out", "integer", "texts", "held-out paraphrases that can be put to the model"),
    Column("skipped", "integer", "texts", "texts of either kind that cannot"),
    Column("skip_reason", "text", "words", "why the first of them cannot; empty without any"),
    Column("correct", "number", "0 to 1", "share of attribution prompts that have the answer on top"),
)
PROMPTS = Column("prompts", "integer", "texts", "attribution prompts in use")
PROBABILITIES = (
    Column("p_prompts", "number", "0 to 1", "mean p(answer) on attribution prompts"),
    Column("p_held_out", "number", "0 to 1", "mean p(answer) on held-out paraphrases; empty where not asked"),
)
FACTS = (*ASKED[:5], PROMPTS, *ASKED[5:], *PROBABILITIES)
DROPPED = Column("n_neurons", "integer", "neurons", "how many were dropped")
DELETION_CELL = (
    METHOD,
    RATIO,
    Column("group", "text", "self, held_out, negative, text", "which texts were asked"),
    METRIC,
)
INJECTION_CELL = (METHOD, RATIO, K, SCOPE, TRUTH, METRIC)
CHECKS = {
    "before": "p(answer) in the base model, held-out paraphrases",
    "prompts": "p(answer) with the plant, attribution prompts",
    "held_out": "p(answer) with the plant, held-out paraphrases",
    "left_prompts": "share of it that is left on prompts with the planted neurons silent",
    "left": "the same on held-out paraphrases",
    "single": "largest share that the silence of one planted neuron costs",
    "least": "what the neuron that adds least adds, 1: an equal share",
    "decoys": "share that the decoys' silence costs",
    "parts": "smallest share that the silence of a needed part costs",
    "broad": "activation of broad neurons on other facts of the relation, relative to the fact's own",
    "others_before": "accuracy on other facts, base model",
    "others": "accuracy on other facts, with the plant",
}

TABLES: dict[str, Table] = {
    "comparison.rows": Table("`Comparison.rows`, `Comparison.to_frame()`, `rows.parquet`", ROWS),
    "comparison.facts": Table("`Comparison.facts`, `facts.parquet`", FACTS),
    "comparison.neurons": Table(
        "`Comparison.neurons`, `neurons.parquet`: one row per selected neuron",
        (METHOD, CELL[1], FACT, RELATION, LAYER, NEURON),
    ),
    "comparison.agreement": Table(
        "`Comparison.agreement`, `agreement.parquet`",
        (
            FACT,
            RELATION,
            METHOD,
            Column("other", "text", "label, or consensus", "the method it is compared with, or the others' mean ranks"),
            Column("value", "number", "−1 to 1", "Spearman correlation of their scores; empty where one is constant"),
        ),
    ),
    "comparison.summary": Table(
        "`Comparison.summary`, `Comparison.cell()`",
        (
            *CELL,
            *MEAN,
            Column("n_neurons", "number", "neurons", "mean number of neurons changed"),
            Column("empty", "integer", "facts", "facts for which the method selected none; they count as no effect"),
        ),
    ),
    "comparison.leaderboard": Table(
        "`Comparison.leaderboard()`, indexed by method",
        (
            Column("seconds", "number", "seconds", "wall-clock time per attribution prompt"),
            Column("forwards", "number", "rows", "rows through the model per attribution prompt"),
            Column("backwards", "number", "rows", "rows back through the model per attribution prompt"),
            Column("k={k}", "number", "from −1", "relative change of p(answer), the top k suppressed: mean"),
            *interval("k={k} low", "k={k} high", "from −1"),
            Column("k={k} of search", "number", "1: as much", "that as a share of direct search's", True),
            *interval("k={k} of search low", "k={k} of search high", "a share", optional=True),
            Column("k={k} beyond others", "number", "nats", "what is lost beyond facts of other relations", True),
            *interval("k={k} beyond others low", "k={k} beyond others high", "nats", optional=True),
        ),
    ),
    "comparison.curves": Table(
        "`report.curves.curves(comparison)`",
        (
            FACT,
            RELATION,
            METHOD,
            Column("curve", "text", "delete, keep", "the top share silent, or all but the top share"),
            Column("share", "number", "0 to 1", "share of all neurons"),
            Column("value", "number", "1: as without intervention", "faithfulness there"),
        ),
    ),
    "comparison.areas": Table(
        "`report.curves.areas(comparison)`",
        (Column("area", "text", "deletion, CPR, CMD", "which area under a curve"), *MEAN, METHOD),
    ),
    "comparison.specificity": Table(
        "`report.specificity.specificity(comparison)`",
        (
            METHOD,
            CELL[1],
            Column("nats", "number", "nats", "log-probability that the fact loses beyond the control group: mean"),
            *interval(values="nats"),
            Column("share", "number", "a share", "the group's relative change as a part of the fact's own"),
            *interval("share_low", "share_high", "a share"),
            Column("n", "integer", "facts", "how many facts the mean is over"),
        ),
    ),
    "grid.rows": Table(
        "`Grid.rows`, `grid.parquet`: the columns of a comparison's rows, and one for each factor",
        (*ROWS, Column("{factor}", "text", "a level", "level of the factor that the column is named for")),
    ),
    "grid.effects": Table(
        "`Grid.effects()`",
        (
            Column("factor", "text", "name", "the setting that varies"),
            METHOD,
            Column("level", "text", "a level", "what it is set to"),
            *MEAN[:3],
            Column("n", "integer", "facts", "how many facts the mean is over"),
            Column("difference", "number", "as the mean", "to the factor's first level, on the same facts"),
            *interval("difference_low", "difference_high"),
            Column("p", "number", "0 to 1", "sign-flip test over relations, corrected by Holm over the table"),
        ),
    ),
    "benchmark.rows": Table(
        "`PlantedResult.rows`, `rows.parquet`",
        (
            Column("model", "text", "name", "the base model"),
            PLANT,
            AXIS,
            FACT,
            RELATION,
            METHOD,
            METRIC,
            Column("value", "number", "shares: 0 to 1; rank, refined_size: neurons", "the number"),
        ),
    ),
    "benchmark.summary": Table("`PlantedResult.summary`, `summary.parquet`", (METRIC, AXIS, METHOD, *MEAN)),
    "benchmark.pairwise": Table(
        "`PlantedResult.pairwise()`, indexed by the other method",
        (
            Column("reference", "text", "label", "the method that the other is held against"),
            Column("difference", "number", "as the metric", "reference minus the other, same planted facts: mean"),
            *interval(values="as the metric"),
            Column("p", "number", "0 to 1", "sign-flip test over relations"),
            Column("p_holm", "number", "0 to 1", "that p corrected by Holm"),
        ),
    ),
    "suite.checks": Table(
        "`Suite.checks()`: one row per fact that was tried",
        (
            PLANT,
            AXIS,
            Column("split", "text", "test, development", "which part of the benchmark it is of"),
            RELATION,
            FACT,
            Column("passed", "truth", "true, false", "whether it counts"),
            *(Column(name, "number", "a share", meaning) for name, meaning in CHECKS.items()),
        ),
    ),
    "inj.rows": Table(
        "`ProtocolResult.rows` of INJ, `rows.parquet`",
        (
            FACT,
            RELATION,
            *INJECTION_CELL,
            Column("n_predicted", "integer", "neurons", "how many the top k % are"),
            Column("n_truth", "integer", "neurons", "how many are right"),
            Column("chance", "number", "0 to 1", "recall of a random ranking, on average"),
            Column("value", "number", "0 to 1", "recall; empty where none is right"),
        ),
    ),
    "inj.facts": Table(
        "`ProtocolResult.facts` of INJ, `facts.parquet`: a row per ratio; from `ratio` on of what was injected",
        (
            *ASKED,
            RATIO,
            Column("new_answer", "text", "words", "what was injected"),
            Column("prompts", "integer", "texts", "attribution prompts it was trained on"),
            Column("reached", "truth", "true, false", "whether the loss was reached; the others are left out of rows"),
            Column("loss_before", "number", "nats", "loss on the new answer before"),
            Column("loss", "number", "nats", "and in the end"),
            Column("steps", "integer", "steps", "of gradient descent"),
            Column("n_truth", "integer", "neurons", "injected into"),
            Column("n_changed", "integer", "neurons", "of these, changed"),
            Column("n_speaking", "integer", "neurons", "of these, active at the answer position"),
        ),
    ),
    "inj.neurons": Table(
        "`ProtocolResult.neurons` of INJ, `neurons.parquet`: one row per neuron injected into",
        (
            FACT,
            RATIO,
            LAYER,
            NEURON,
            Column("changed", "truth", "true, false", "its value vector was changed"),
            Column("speaking", "truth", "true, false", "it is active at the answer position"),
        ),
    ),
    "inj.summary": Table("`ProtocolResult.summary` of INJ", (*INJECTION_CELL, *MEAN)),
    "del.rows": Table(
        "`ProtocolResult.rows` of DEL, `rows.parquet`",
        (
            FACT,
            RELATION,
            *DELETION_CELL,
            DROPPED,
            Column("value", "number", "accuracies: 0 to 1; log p: nats; perplexities: from 1", "the number"),
        ),
    ),
    "del.facts": Table("`ProtocolResult.facts` of DEL, `facts.parquet`", FACTS),
    "del.neurons": Table(
        "`ProtocolResult.neurons` of DEL, `neurons.parquet`: one row per neuron dropped",
        (FACT, RELATION, METHOD, RATIO, LAYER, NEURON),
    ),
    "del.summary": Table("`ProtocolResult.summary` of DEL", (*DELETION_CELL, *MEAN)),
    "parameter_randomisation": Table(
        "`parameter_randomisation()`; its seed is in `.attrs`",
        (
            Column("layers", "integer", "layers", "how many were randomised, from the top down"),
            Column("spearman", "number", "−1 to 1", "correlation of the scores before and after: mean over facts"),
            Column("low", "number", "−1 to 1", "the lowest of any fact"),
            Column("high", "number", "−1 to 1", "the highest of any fact"),
        ),
    ),
    "scores": Table(
        "`NeuronScores.to_frame()`: one row per prompt and neuron",
        (
            FACT,
            Column("prompt", "text", "words", "the text, with its slot"),
            LAYER,
            NEURON,
            Column("score", "number", "the method's own", "larger: more responsible for the answer"),
        ),
    ),
    **FIRING,
    **READING,
    **TRACING,
}
