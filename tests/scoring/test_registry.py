"""The registry: names, texts that name scorers, and plug-ins."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kn_attrib import Batch, Fact, NeuronModel, Scorer, get_method, list_methods, load_plugin, register, score
from kn_attrib.errors import MethodError
from kn_attrib.methods import IntegratedGradients, Random
from kn_attrib.scoring.registry import make_scorer, origin

pytestmark = pytest.mark.usefixtures("registry")

TEN_LINES = """\
from dataclasses import dataclass
import kn_attrib

@kn_attrib.register("weighted")
@dataclass(frozen=True)
class Weighted(kn_attrib.Scorer):
    \"\"\"Activation times the length of what the neuron writes.\"\"\"
    power: float = 1.0
    def score(self, model, batch):
        return model.record(batch).abs() ** self.power * model.value_norms()
"""


def scorer_class() -> type[Scorer]:
    @dataclass(frozen=True)
    class Zero(Scorer):
        """Nothing."""

        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            return torch.zeros(len(batch), model.n_layers, model.n_neurons)

    return Zero


def test_a_registered_class_is_found_under_all_its_names() -> None:
    cls = register("zero", "nought")(scorer_class())
    assert get_method("zero") is get_method("nought") is cls
    assert cls.name == "zero"
    assert "zero" in list_methods()
    assert "nought" not in list_methods()
    assert "nought" in list_methods(aliases=True)


def test_the_registry_fixture_forgets() -> None:
    assert "zero" not in list_methods(aliases=True)


@pytest.mark.parametrize("names", [("random",), ("zero", "random"), ("layer_integrated_conductance",)])
def test_a_taken_name_is_refused_and_its_origin_named(names: tuple[str, ...]) -> None:
    taken = names[-1]
    where = r"random\.py:\d+" if taken == "random" else r"layer_conductance\.py:\d+"
    with pytest.raises(
        MethodError, match=rf"method '{taken}' is registered already, by .*{where}; choose another name"
    ):
        register(*names)(scorer_class())
    assert "zero" not in list_methods()


def test_only_scorer_dataclasses_can_be_registered() -> None:
    class Plain(Scorer):
        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            raise NotImplementedError

    for wrong in (Plain, dataclass(frozen=True)(type("NoScorer", (), {})), "text"):
        with pytest.raises(
            MethodError, match=r"cannot register .* as 'x'; expected a @dataclass subclass of kn_attrib"
        ):
            register("x")(wrong)  # type: ignore[type-var]


def test_an_unknown_method_shows_close_ones_and_all() -> None:
    with pytest.raises(MethodError) as error:
        get_method("integrated_gradient")
    assert "unknown method 'integrated_gradient'. Did you mean 'integrated_gradients'" in str(error.value)
    assert all(name in str(error.value) for name in list_methods(aliases=True))


def test_origin_is_file_and_line() -> None:
    file, line = origin(Random).rsplit(":", 1)
    assert Path(file).name == "random.py"
    assert "register" in Path(file).read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", Random()),
        ("random(seed=3)", Random(seed=3)),
        ("random()", Random()),
        ("integrated_gradients:dai2022", IntegratedGradients(steps=20, rule="riemann_left")),
        ("integrated_gradients(steps=8, objective='logit')", IntegratedGradients(steps=8, objective="logit")),
        (Random, Random()),
        (Random(seed=9), Random(seed=9)),
    ],
)
def test_make_scorer(text: Any, expected: Scorer) -> None:
    assert make_scorer(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("integrated_gradients:dai", "integrated_gradients: unknown preset 'dai'. Did you mean 'dai2022'"),
        ("random:dai2022", r"random: unknown preset 'dai2022'\. Known: none"),
        ("integrated_gradients(step=3)", "integrated_gradients: unknown parameter 'step'. Did you mean 'steps'"),
        ("integrated_gradients(rule='riemann_lft')", "unknown rule 'riemann_lft'. Did you mean 'riemann_left'"),
        ("integrated_gradients(objective='prop')", "unknown objective 'prop'. Did you mean 'prob'"),
        ("integrated_gradients(steps='many')", "integrated_gradients: parameter 'steps' is 'many'; expected int"),
        ("ablation(value=None)", "ablation: parameter 'value' is None; expected float"),
        ("random(3)", r"cannot read method 'random\(3\)'; expected name\(param=value, …\) with plain values"),
        ("random(seed=", r"cannot read method 'random\(seed='"),
        ("random(seed=1, seed=2)", "cannot read method .*each parameter once"),
        ("random(seed=1)(seed=2)", "cannot read method"),
        ("random(seed={[]: 1})", "cannot read method"),
        ("random(seed=True)", "random: parameter 'seed' is True; expected int"),
        ("ablation(screen=False)", "ablation: parameter 'screen' is False; expected float"),
        ("random(seed=open)", r"cannot read method 'random\(seed=open\)'"),
        (5, "5 is not a method; expected a name, a Scorer class or a Scorer"),
    ],
)
def test_texts_that_name_no_scorer(text: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_scorer(text)


def test_a_parameter_without_a_default_must_be_given() -> None:
    @register("demanding")
    @dataclass(frozen=True)
    class Demanding(Scorer):
        value: int

        def score(self, model: NeuronModel, batch: Batch) -> Tensor:
            raise NotImplementedError

    assert make_scorer("demanding(value=2)").params() == {"value": 2}
    for spec in ("demanding", Demanding):
        with pytest.raises(
            MethodError, match=r"demanding: parameter 'value' has no default; write demanding\(value=…\)"
        ):
            make_scorer(spec)


def plugin(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my_scorer.py"
    path.write_text(text)
    return path


def test_ten_lines_make_a_plugin(tmp_path: Path, tiny: NeuronModel, facts: list[Fact]) -> None:
    assert len(TEN_LINES.splitlines()) <= 10
    path = plugin(tmp_path, TEN_LINES)
    assert load_plugin(path) == ["weighted"]
    assert origin(get_method("weighted")) == f"{path}:4"
    found = score(tiny, facts[0], "weighted(power=2)")
    assert found.values.shape == (5, 3, 48)
    assert found.params == {"power": 2}


def test_a_plugin_may_postpone_its_annotations(tmp_path: Path) -> None:
    path = plugin(tmp_path, "from __future__ import annotations\n" + TEN_LINES)
    assert load_plugin(path) == ["weighted"]
    assert make_scorer("weighted(power=2.0)").params() == {"power": 2.0}
    with pytest.raises(MethodError, match="weighted: parameter 'power' is 'a'; expected float"):
        make_scorer("weighted(power='a')")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "failed in line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "failed in line 2: SystemExit: 0"),
        ("import os\nos._exit(0)\n", "failed in line 2: SystemExit: 0"),
        ("import no_such_package\n", "failed in line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("def (:\n", "failed.*: SyntaxError: "),
        ("x = 1\n", r"registered no method; decorate a class with @kn_attrib\.register\(name\)"),
        (
            TEN_LINES.replace("weighted", "random"),
            r"failed in line 4: method 'random' is registered already, by .*random\.py",
        ),
    ],
)
def test_plugins_that_do_not_work_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MethodError, match=rf"plug-in '.*my_scorer\.py' {message}"):
        load_plugin(plugin(tmp_path, text))


def test_a_plugin_that_fails_half_way_leaves_nothing_registered(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"failed in line 11: NameError: name 'oops' is not defined"):
        load_plugin(plugin(tmp_path, TEN_LINES + "oops\n"))
    assert "weighted" not in list_methods()
    assert "kn_attrib_plugin_my_scorer" not in sys.modules
    assert load_plugin(plugin(tmp_path, TEN_LINES)) == ["weighted"]


def test_files_that_are_no_plugins(tmp_path: Path) -> None:
    with pytest.raises(
        MethodError, match=r"plug-in 'nowhere\.py' does not exist; expected a Python file that registers"
    ):
        load_plugin("nowhere.py")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(MethodError, match=r"notes\.txt' is not a Python file; expected a name that ends in \.py"):
        load_plugin(tmp_path / "notes.txt")
