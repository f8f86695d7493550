"""What is in the tables of `kn_attrib.evaluation.reading`, column by column."""

from __future__ import annotations

from kn_attrib.evaluation.records.columns import Column, Table

FACT = Column("fact", "text", "id", "the fact")
RELATION = Column("relation", "text", "id", "its relation")
METHOD = Column("method", "text", "label", "the method whose neurons these are")
LAYER = Column("layer", "integer", "from 0", "the neuron's layer")
NEURON = Column("neuron", "integer", "from 0", "its index in that layer")
BEHIND = Column("layer", "integer", "from 0", "the layer behind which the answer is read off")
SIGN = Column("sign", "integer", "1, −1", "sign of the activation that the words are written with")
WORD = Column("word", "text", "token", "the word")
WORD_ID = Column("word_id", "integer", "from 0", "its id in the vocabulary")
METRIC = Column("metric", "text", "answer_in_words, answer_log_rank, answer_follows, subject_in_context", "see `read`")
WILSON = (
    Column("share", "number", "0 to 1", "share of the neurons that write what follows their first context"),
    Column("low", "number", "0 to 1", "lower end of Wilson's 95 % interval"),
    Column("high", "number", "0 to 1", "upper end of Wilson's 95 % interval"),
    Column("n", "integer", "neurons", "how many have a word that follows"),
)
ACTIVATION = Column("activation", "number", "signed", "the activation")
KEYS = (
    LAYER,
    NEURON,
    Column("rank", "integer", "from 1", "1: where the neuron is furthest from zero"),
    ACTIVATION,
    Column("text", "integer", "from 0", "which text of the corpus"),
    Column("place", "integer", "from 0", "token of the text at which the neuron is read"),
    Column("context", "text", "words", "the end of what was read; … stands for a masked word"),
    Column("word", "text", "token, or empty", "what follows, or was masked; empty at a text's end"),
    Column("word_id", "integer", "from −1", "its id; −1 at a text's end"),
)
WORDS = (
    LAYER,
    NEURON,
    SIGN,
    Column("rank", "integer", "from 1", "1: the most likely word"),
    WORD,
    WORD_ID,
    Column("logit", "number", "logits", "of the value vector through final norm and unembedding"),
    Column("probability", "number", "0 to 1", "softmax of these logits"),
)

READING: dict[str, Table] = {
    "read.rows": Table(
        "`ReadingResult.rows`, `rows.parquet`",
        (FACT, RELATION, METHOD, METRIC, Column("value", "number", "as the metric", "the number")),
    ),
    "read.neurons": Table(
        "`ReadingResult.neurons`, `neurons.parquet`: one row per neuron of a fact by a method",
        (
            FACT,
            RELATION,
            METHOD,
            Column("place", "integer", "from 1", "its place in the method's ranking"),
            LAYER,
            NEURON,
            Column("score", "number", "the method's", "mean score over the fact's queries"),
            Column("activation", "number", "signed", "mean activation over the fact's queries"),
            Column("sign", "integer", "1, −1", "its sign"),
            Column("answer_rank", "integer", "from 1", "rank of the answer's first token among the words it writes"),
        ),
    ),
    "read.keys": Table("`ReadingResult.keys`, `keys.parquet`, `TopPrompts.to_frame()`", KEYS),
    "read.words": Table("`ReadingResult.words`, `words.parquet`, `read_values()`", WORDS),
    "read.lens": Table(
        "`ReadingResult.lens`, `lens.parquet`",
        (
            FACT,
            RELATION,
            BEHIND,
            Column("logprob", "number", "nats, to 0", "mean log p(answer) over the fact's queries"),
            Column("rank", "number", "from 1", "geometric mean of the answer's rank over them"),
        ),
    ),
    "read.agreement": Table(
        "`ReadingResult.agreement`, `agreement.parquet`",
        (
            Column("layer", "integer", "from 0", "the layer"),
            Column("measure", "text", "agreement, among_10", "the most likely word, or one of the ten most likely"),
            Column("values", "text", "own, shuffled", "each neuron's own value vector, or another's of the layer"),
            *WILSON,
        ),
    ),
    "read.calibration": Table(
        "`ReadingResult.calibration`, `calibration.parquet`",
        (
            Column("above", "number", "0 to 1", "the probability of a value's most likely word is above this"),
            Column("up_to", "number", "0 to 1", "and at most this"),
            Column("probability", "number", "0 to 1", "its mean there; empty without neurons"),
            *WILSON,
        ),
    ),
    "logit_lens": Table(
        "`logit_lens()`",
        (
            FACT,
            RELATION,
            Column("query", "integer", "from 0", "which of the queries given"),
            BEHIND,
            Column("logprob", "number", "nats, to 0", "log p(answer)"),
            Column("rank", "integer", "from 1", "rank of the answer; 1 is on top"),
        ),
    ),
}
