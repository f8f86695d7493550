"""What is in the tables of `kn_attrib.evaluation.tracing`, column by column."""

from __future__ import annotations

from kn_attrib.evaluation.records.columns import Column, Table, interval

FACT = Column("fact", "text", "id", "the fact")
RELATION = Column("relation", "text", "id", "its relation")
KIND = Column(
    "kind", "text", "hidden, ffn, attention, hidden_severed_ffn, hidden_severed_attention", "what was restored"
)
CELL = (
    Column(
        "method", "text", "label, tracing, all neurons", "whose layers these are; tracing: of the traces themselves"
    ),
    Column("kind", "text", "as of cells, or neurons", "what was restored, or the layer's neurons"),
    Column("role", "text", "before, first_subject, …, answer", "what the tokens are to the subject and the answer"),
    Column("layer", "integer", "from 0", "the layer; of a window its middle"),
    Column("metric", "text", "indirect_effect, score_share, refined_share, suppression", "what the value is"),
)

TRACING: dict[str, Table] = {
    "trace.rows": Table(
        "`Trace.rows`, `rows.parquet`",
        (FACT, RELATION, *CELL, Column("value", "number", "points of p(answer), or a share", "the number")),
    ),
    "trace.cells": Table(
        "`Trace.cells`, `cells.parquet`: one row per restored state",
        (
            FACT,
            RELATION,
            Column("prompt", "integer", "from 0", "which of the fact's traced texts"),
            KIND,
            Column("token", "integer", "from 0", "the token whose state was restored"),
            Column("text", "text", "token", "the same as text"),
            Column("layer", "integer", "from 0", "the layer; of a window its middle"),
            Column("low", "integer", "from 0", "first layer that was restored"),
            Column("high", "integer", "from 1", "one more than the last"),
            Column("p", "number", "0 to 1", "p(answer) with it restored, mean over samples"),
            Column("effect", "number", "−1 to 1", "indirect effect: p less p(answer) of the corrupted runs"),
            Column("deviation", "number", "0 to 1", "standard deviation of the effect over samples"),
        ),
    ),
    "trace.prompts": Table(
        "`Trace.prompts`, `prompts.parquet`: one row per text; of those that were not traced, numbers may be empty",
        (
            FACT,
            Column("prompt", "integer", "from 0; −1: not traced", "which of the fact's texts"),
            Column("text", "text", "words", "the text with its slot"),
            Column("status", "text", "traced, answered wrongly, no subject, …", "whether it was traced, or why not"),
            Column("p_clean", "number", "0 to 1", "p(answer) of the clean run"),
            Column("p_corrupted", "number", "0 to 1", "mean p(answer) of the corrupted runs"),
            Column("samples", "integer", "runs", "corrupted runs"),
            Column("tokens", "integer", "tokens", "of the text"),
            Column("subject_start", "integer", "from 0", "the subject's first token"),
            Column("subject_end", "integer", "from 1", "one more than its last"),
        ),
    ),
    "trace.facts": Table(
        "`Trace.facts`, `facts.parquet`",
        (
            FACT,
            RELATION,
            Column("subject", "text", "words", "its subject"),
            Column("answer", "text", "words", "its answer"),
            Column("status", "text", "used, unusable, unknown, …", "whether it is judged, or why not"),
            Column("prompts", "integer", "texts", "attribution prompts that can be put to the model"),
            Column("correct", "number", "0 to 1", "share of them that have the answer on top"),
            Column("p_prompts", "number", "0 to 1", "mean p(answer) on them"),
        ),
    ),
    "trace.summary": Table(
        "`Trace.summary`",
        (
            *CELL,
            Column("mean", "number", "as the metric", "mean over facts within relations, then over relations"),
            *interval(),
            Column("n", "number", "facts", "how many facts the mean is over"),
        ),
    ),
    "trace.average_effects": Table(
        "`Trace.average_effects()`",
        (
            *CELL[2:4],
            Column("mean", "number", "points of p(answer)", "average indirect effect"),
            *interval(),
            Column("n", "number", "facts", "how many facts the mean is over"),
        ),
    ),
    "trace.total_effects": Table(
        "`Trace.total_effects`, indexed by `p_clean`, `p_corrupted` and `total_effect`",
        (
            Column("mean", "number", "−1 to 1", "mean over facts within relations, then over relations"),
            *interval(),
            Column("n", "number", "facts", "how many facts the mean is over"),
        ),
    ),
}
