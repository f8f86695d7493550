"""What an edit is to come to: a fact, the answer that a model shall give instead, and the texts it is made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from kn_attrib.errors import EditError, listed
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel


@dataclass(frozen=True)
class Edit:
    """A fact and the answer that a model shall give in place of the fact's own.

    Parameters
    ----------
    fact : the fact as it is.
    target : the new answer.
    prompts : texts with the slot ``[Y]`` that the edit is made with, the fact's prompts if not given; never its
        held-out ones, which judge it.

    Raises
    ------
    EditError : the target is right already: the fact's answer, or one of its alternatives.
    FactError : the target is empty, a text has no slot or two, or is one of the held-out texts.
    """

    fact: Fact
    target: str
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.fact, Fact):
            raise EditError(f"fact is {self.fact!r}; expected kn_attrib.Fact.")
        object.__setattr__(self, "prompts", listed("prompts", self.prompts) or self.fact.prompts)
        after = self.after
        right = [answer for answer in (self.fact.answer, *self.fact.alternatives) if _same(answer, after.answer)]
        if right:
            raise EditError(
                f"edit of fact {self.fact.id!r}: the target {self.target!r} is a right answer already ({right[0]!r}); "
                "name another one."
            )

    @cached_property
    def before(self) -> Fact:
        """The fact as it is, with the texts of the edit as its prompts."""
        return replace(self.fact, prompts=self.prompts)

    @cached_property
    def after(self) -> Fact:
        """The fact as it shall be."""
        return replace(self.fact, prompts=self.prompts, answer=self.target, alternatives=())


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def wanted_queries(model: NeuronModel, edit: Edit) -> tuple[Prompt, ...]:
    """The queries of the edit's texts, asked for the target.

    Raises
    ------
    EditError : no text can be put to the model, its tokenizer cannot write the target, or writes it as the old answer.
    """
    queries = _queries(model, edit.after, f"the target {edit.target!r}")
    old = _queries(model, edit.before, f"the answer {edit.fact.answer!r}")
    if _first_answer(queries) == _first_answer(old):
        raise EditError(
            f"edit of fact {edit.fact.id!r}: {model.name} writes the target {edit.target!r} and the answer "
            f"{edit.fact.answer!r} with the same tokens; name another target."
        )
    return queries


def answer_ids(model: NeuronModel, edit: Edit) -> tuple[list[int], list[int]]:
    """Token ids of the old answer and of the target, as they stand in the edit's first text.

    Raises
    ------
    EditError : as of `wanted_queries`.
    """
    new = wanted_queries(model, edit)
    return _first_answer(_queries(model, edit.before, f"the answer {edit.fact.answer!r}")), _first_answer(new)


def _queries(model: NeuronModel, fact: Fact, what: str) -> tuple[Prompt, ...]:
    encoding = model.encoder.encode_all([fact])
    if encoding.prompts:
        return encoding.prompts
    first = encoding.skipped[0]
    if first.cause == "answer unknown to the tokenizer":
        raise EditError(f"edit of fact {fact.id!r}: {model.name} cannot write {what}: {first.reason}")
    raise EditError(f"edit of fact {fact.id!r}: no text of it can be put to {model.name}; the first: {first.reason}")


def _first_answer(queries: Sequence[Prompt]) -> list[int]:
    return [query.answer_id for query in queries[: queries[0].tokens]]
