"""What an edit may ask for, and what is said where it cannot be made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from editing_world import NEURONS
from kn_attrib import Fact, FactSet, NeuronModel
from kn_attrib.editing import Edit, KnowledgeNeurons
from kn_attrib.editing.edit import answer_ids, wanted_queries
from kn_attrib.errors import EditError, FactError

PARIS = Fact(
    "capital:France", "capital", "France", "Paris", ("the capital of France is [Y].",), ("France: [Y]",), ("Lyon",)
)


@pytest.mark.parametrize(("target", "right"), [("Paris", "Paris"), (" paris ", "Paris"), ("lyon", "Lyon")])
def test_a_target_that_is_right_already(target: str, right: str) -> None:
    with pytest.raises(EditError, match=f"is a right answer already \\('{right}'\\); name another one"):
        Edit(PARIS, target)


def test_other_odd_edits() -> None:
    with pytest.raises(FactError, match="non-empty text"):
        Edit(PARIS, " ")
    with pytest.raises(FactError, match="holds the slot"):
        Edit(PARIS, "Rome", ("the capital of France",))
    with pytest.raises(FactError, match="in both 'prompts' and 'held_out'"):
        Edit(PARIS, "Rome", PARIS.held_out)
    with pytest.raises(EditError, match=r"expected kn_attrib\.Fact"):
        Edit("France", "Rome")  # type: ignore[arg-type]


def test_the_texts_are_the_facts_unless_others_are_given() -> None:
    assert Edit(PARIS, "Rome").after.prompts == PARIS.prompts
    edit = Edit(PARIS, "Rome", ("France lies in [Y].",))
    assert edit.before.prompts == edit.after.prompts == ("France lies in [Y].",)
    assert (edit.before.answer, edit.after.answer, edit.after.alternatives) == ("Paris", "Rome", ())


def test_the_tokens_are_asked_for_with_the_target(tiny: NeuronModel) -> None:
    (query,) = wanted_queries(tiny, Edit(PARIS, "Rome"))
    space = "Ġ" * (tiny.kind == "causal")
    assert tiny.tokenizer.convert_ids_to_tokens(query.answer_id) == f"{space}Rome"
    old, new = answer_ids(tiny, Edit(PARIS, "Rome"))
    assert tiny.tokenizer.convert_ids_to_tokens(old + new) == [f"{space}Paris", f"{space}Rome"]


def test_a_target_that_the_tokenizer_cannot_write(tiny: NeuronModel) -> None:
    with pytest.raises(EditError, match=r"cannot write the target 'Oslo': .*does not know the answer 'Oslo'"):
        KnowledgeNeurons(neurons=NEURONS).apply(tiny, Edit(PARIS, "Oslo"))


def test_a_text_that_cannot_be_put_to_the_model(load_tiny: Callable[..., NeuronModel]) -> None:
    edit = Edit(PARIS, "Rome", ("in [Y] the people of France",))
    with pytest.raises(EditError, match=r"no text of it can be put to .*goes on after the slot"):
        wanted_queries(load_tiny("causal"), edit)


def test_an_answer_of_the_same_tokens(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    tiny = load_tiny("masked")
    split = tiny.tokenizer("Paris.")["input_ids"]
    assert split == tiny.tokenizer("Paris .")["input_ids"]
    fact = Fact("a", "r", "France", "Paris.", ("the capital of France is [Y]",))
    with pytest.raises(EditError, match="with the same tokens"):
        wanted_queries(tiny, Edit(fact, "Paris ."))
