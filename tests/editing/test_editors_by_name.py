"""Editors by name: the package's own, and further ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from editing_world import NEURONS, edit_of
from kn_attrib import FactSet, NeuronModel
from kn_attrib.editing import (
    Change,
    Edit,
    Editor,
    KnowledgeNeurons,
    get_editor,
    list_editors,
    make_editor,
    register_editor,
)
from kn_attrib.editing.registry import _EDITORS
from kn_attrib.errors import MethodError


@pytest.fixture
def editors() -> Iterator[dict[str, type[Editor]]]:
    """The registered editors; what a test registers is forgotten after it."""
    list_editors()
    before = dict(_EDITORS)
    yield _EDITORS
    _EDITORS.clear()
    _EDITORS.update(before)


@dataclass(frozen=True)
class Nothing(Editor):
    """Changes nothing."""

    times: int = 1

    def changes(self, model: NeuronModel, edit: Edit) -> Sequence[Change]:
        """None."""
        return ()


def test_a_further_editor(editors: object, tiny: NeuronModel, facts: FactSet) -> None:
    register_editor("nothing")(Nothing)
    assert "nothing" in list_editors()
    assert get_editor("nothing") is Nothing
    assert make_editor("nothing(times=2)") == Nothing(2)
    assert make_editor(Nothing) == Nothing()
    assert make_editor(Nothing(3)) == Nothing(3)
    delta = Nothing(3).delta(tiny, edit_of(facts))
    assert delta.about["editor"] == "nothing"
    assert delta.about["params"] == {"times": 3}
    assert delta.changes == ()


def test_what_cannot_be_registered(editors: object) -> None:
    register_editor("nothing")(Nothing)
    with pytest.raises(MethodError, match=r"editor 'nothing' is registered already, by .*Nothing; choose another"):
        register_editor("nothing")(Nothing)
    with pytest.raises(MethodError, match="expected a @dataclass subclass of Editor"):
        register_editor("plain")(int)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("knowledge_neuron", "unknown editor 'knowledge_neuron'. Did you mean 'knowledge_neurons'"),
        ("knowledge_neurons:dai", "unknown preset 'dai'"),
        ("knowledge_neurons(lamda=1)", "unknown parameter 'lamda'"),
        ("knowledge_neurons(add='8')", "parameter 'add' is '8'; expected float"),
        (7, "7 is not an editor"),
    ],
)
def test_what_is_not_an_editor(spec: object, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_editor(spec)


ENTRY = """
from collections.abc import Sequence
from dataclasses import dataclass
from kn_attrib.editing import Editor, register_editor

@register_editor("from_elsewhere")
@dataclass(frozen=True)
class Elsewhere(Editor):
    def changes(self, model, edit):
        return ()
"""


def test_editors_of_other_packages(editors: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kn_attrib.editing.registry import _discover

    (tmp_path / "their_editors.py").write_text(ENTRY)
    info = tmp_path / "their_editors-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: their-editors\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[kn_attrib.editors]\nfrom_elsewhere = their_editors\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _discover.cache_clear()
    try:
        assert "from_elsewhere" in list_editors()
        (tmp_path / "their_editors.py").write_text("raise ImportError('no')")
        del sys.modules["their_editors"]
        _discover.cache_clear()
        with pytest.raises(MethodError, match="editor 'from_elsewhere' of package 'their_editors' failed to load"):
            list_editors()
    finally:
        monkeypatch.undo()
        sys.modules.pop("their_editors", None)
        _discover.cache_clear()


def test_the_record_says_how_an_edit_was_made(tiny: NeuronModel, facts: FactSet) -> None:
    about = KnowledgeNeurons(neurons=NEURONS, add=2).delta(tiny, edit_of(facts)).about
    assert about["params"]["neurons"] == [[0, 3], [0, 40], [2, 7]]
    assert about["params"]["add"] == 2
    assert (about["fact"], about["answer"], about["target"]) == ("capital:France", "Paris", "Rome")
    assert about["prompts"] == list(facts[0].prompts)
    some = Edit(facts[0], "Rome", (facts[0].prompts[0], "[Y] is the capital of France"))
    used = KnowledgeNeurons(neurons=NEURONS).delta(tiny, some).about["prompts"]
    assert used == list(some.prompts)[: 1 if tiny.kind == "causal" else 2]
    assert KnowledgeNeurons.summary().startswith("The answer's embedding")
    assert KnowledgeNeurons.defaults()["k"] is None
