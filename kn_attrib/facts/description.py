"""What a model is given for a fact, token by token, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from transformers import PreTrainedTokenizerBase

from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Skipped, Split, Text


@dataclass(frozen=True)
class Token:
    """A token: its string as the vocabulary has it (``"ĠParis"``), its id, and the text that it stands for."""

    piece: str
    id: int
    text: str

    def __str__(self) -> str:
        """The string, escaped where it holds white space, and its text where that is not to be seen: ``Ċ='\\n'``."""
        shown = self.piece if self.piece.isprintable() and " " not in self.piece else repr(self.piece)
        return shown if self.text.isprintable() or self.text == self.piece else f"{shown}={self.text!r}"


@dataclass(frozen=True)
class GivenText:
    """One text of a fact as one model is given it, or why it is not.

    Parameters
    ----------
    split, text : where it stands in the fact.
    tokens : what is given before the answer is asked for (masked models: all of the text, with its masks; encoder-
        decoders: the decoder's).
    source : what the encoder of an encoder-decoder reads.
    answer, positions : the gold tokens, and the index of the token at which each is predicted; but for masked models
        each is predicted behind the gold ones before it.
    skipped : why the text is left out; there are no tokens then.
    """

    split: Split
    text: str
    tokens: tuple[Token, ...] = ()
    source: tuple[Token, ...] = ()
    answer: tuple[Token, ...] = ()
    positions: tuple[int, ...] = ()
    skipped: Skipped | None = None


def describe_texts(encoder: PromptEncoder, fact: Fact) -> tuple[GivenText, ...]:
    """All texts of a fact, prompts first, as the encoder's model is given them; no model is run."""
    found = []
    for split in get_args(Split):
        encoding = encoder.encode_all([fact], split)
        used = {text.text: text for text in encoding.texts}
        skipped = iter(encoding.skipped)
        for text in getattr(fact, split):
            # A text that stands there again is left out the second time.
            given = used.pop(text, None)
            found.append(
                GivenText(split, text, skipped=next(skipped)) if given is None else _given(encoder, given, split)
            )
    return tuple(found)


def _given(encoder: PromptEncoder, text: Text, split: Split) -> GivenText:
    first, tokenizer = text.queries[0], encoder.tokenizer
    return GivenText(
        split,
        text.text,
        tokens=_tokens(tokenizer, first.input_ids),
        source=_tokens(tokenizer, first.source),
        answer=_tokens(tokenizer, [query.answer_id for query in text.queries]),
        positions=tuple(query.position for query in text.queries),
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[Token, ...]:
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    texts = [tokenizer.decode([each], clean_up_tokenization_spaces=False) for each in ids]
    return tuple(Token(str(piece), each, str(text)) for piece, each, text in zip(pieces, ids, texts, strict=True))
