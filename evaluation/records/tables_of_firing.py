"""What is in the tables of `kn_attrib.evaluation.firing`, column by column."""

from __future__ import annotations

from kn_attrib.evaluation.records.columns import Column, Table, interval

FACT = Column("fact", "text", "id", "the fact")
RELATION = Column("relation", "text", "id", "its relation")
METHOD = Column("method", "text", "label", "the method whose neurons these are")
DESIGN = Column("design", "text", "published, unconfounded", "which of the two designs")
GROUP = Column("group", "text", "name", "which kind of texts; the page on prompt types says what each holds")
NEURONS = Column("neurons", "text", "own, same layers", "the fact's neurons, or all others of their layers")
METRIC = Column("metric", "text", "standardised, activation", "in standard deviations, or as it is")
CELL = (METHOD, DESIGN, GROUP, NEURONS, METRIC)
UNIT = "standardised: deviations over random words; activation: signed"

FIRING: dict[str, Table] = {
    "prompts.rows": Table(
        "`PromptTypes.rows`, `rows.parquet`", (FACT, RELATION, *CELL, Column("value", "number", UNIT, "the mean"))
    ),
    "prompts.texts": Table(
        "`PromptTypes.texts`, `texts.parquet`: one row per fact and group",
        (
            FACT,
            RELATION,
            DESIGN,
            GROUP,
            Column("n", "integer", "texts", "how many there are"),
            Column("words", "number", "words", "how long they are on average, the hidden word not counted"),
            Column("example", "text", "words", "the first of them, with a slot where a word is hidden"),
        ),
    ),
    "prompts.summary": Table(
        "`PromptTypes.summary`",
        (
            *CELL,
            Column("mean", "number", UNIT, "mean over facts within relations, then over relations"),
            *interval(),
            Column("n", "number", "facts", "how many facts the mean is over"),
        ),
    ),
    "prompts.contrasts": Table(
        "`PromptTypes.contrasts`",
        (
            METHOD,
            DESIGN,
            Column("contrast", "text", "name", "which groups are subtracted"),
            Column(
                "neurons",
                "text",
                "own, same layers, difference",
                "whose contrast: the fact's, the others', the first less",
            ),
            Column(
                "mean", "number", "deviations over random words", "mean over facts within relations, then over them"
            ),
            *interval(),
            Column("p", "number", "0 to 1", "two-sided, of flipping the signs of relations"),
            Column("n", "integer", "facts", "how many have all groups"),
            Column("relations", "integer", "relations", "of how many relations they are"),
        ),
    ),
}
