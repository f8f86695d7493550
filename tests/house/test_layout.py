"""The house rules, read from the source: who may import whom, and how long things are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kn_attrib import get_method, list_methods
from kn_attrib.scoring.registry import origin

ROOT = Path(__file__).parents[2]
# rglob does not follow the two symlinks, so each file comes once.
FILES = sorted(p for folder in ("kn_attrib", "methods", "evaluation") for p in (ROOT / folder).rglob("*.py")
               if not any(q.is_symlink() for q in p.parents))  # fmt: skip
every_file = pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> set[str]:
    """Full names of everything a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def from_package(file: Path, package: str) -> set[str]:
    return {name for name in imports(file) if name == package or name.startswith(package + ".")}


def banned(file: Path) -> tuple[str, ...]:
    folder, *rest = file.relative_to(ROOT).parts
    if folder == "methods":
        return ("kn_attrib.evaluation", "kn_attrib.cli")
    if folder == "evaluation":
        return ("kn_attrib.methods", "kn_attrib.cli")
    if rest[0] == "cli":
        return ()
    # The two public names of the evaluation are looked up when used.
    return ("kn_attrib.methods",) if rest == ["__init__.py"] else ("kn_attrib.methods", "kn_attrib.evaluation")


def test_all_three_folders_are_read() -> None:
    assert {f.relative_to(ROOT).parts[0] for f in FILES} == {"kn_attrib", "methods", "evaluation"}
    assert len({f.resolve() for f in FILES}) == len(FILES) > 30


@every_file
def test_imports_go_one_way(file: Path) -> None:
    for package in (*banned(file), "methods", "evaluation"):
        assert from_package(file, package) == set()


@every_file
def test_imports_are_absolute(file: Path) -> None:
    relative = [n.lineno for n in ast.walk(tree_of(file)) if isinstance(n, ast.ImportFrom) and n.level]
    assert relative == []


@every_file
def test_files_and_functions_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350
    functions = [n for n in ast.walk(tree_of(file)) if isinstance(n, Function)]
    assert {f.name: lines(f) for f in functions if lines(f) > 60} == {}


def lines(function: Function) -> int:
    """Lines of a function's signature and body, without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    length = (function.end_lineno or 0) - function.lineno + 1
    return length - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)


def public(node: ast.AST, overrides: bool = False) -> Iterator[ast.ClassDef | Function]:
    """Public classes and functions, and methods of public classes that do not merely override an inherited one."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | Function) or child.name.startswith("_"):
            continue
        names = {getattr(d, "id", getattr(d, "attr", "")) for d in child.decorator_list}
        if not (overrides and child.name in ("score", "score_facts")) and "overload" not in names:
            yield child
        if isinstance(child, ast.ClassDef):
            yield from public(child, overrides=bool(child.bases))


OBVIOUS = {"n_layers", "device", "dtype", "input_ids", "positions", "answers"}
"""Properties whose name says it all, or that their class's docstring explains."""


@every_file
def test_public_names_have_docstrings(file: Path) -> None:
    tree = tree_of(file)
    assert ast.get_docstring(tree)
    assert [n.name for n in public(tree) if not ast.get_docstring(n) and n.name not in OBVIOUS] == []


def test_each_method_has_a_file_of_its_own() -> None:
    # A plug-in that another test loaded is not ours to judge.
    files = [Path(origin(get_method(name)).rsplit(":", 1)[0]) for name in list_methods()]
    own = [f.resolve() for f in files if f.resolve().parent == ROOT / "methods"]
    assert len(own) >= 7
    assert len(set(own)) == len(own)
    assert {f.name for f in (ROOT / "methods").glob("*.py")} >= {f.name for f in own}


def test_methods_are_one_file_each() -> None:
    assert [p for p in (ROOT / "methods").glob("*/*.py") if p.parent.name != "__pycache__"] == []


def test_captums_private_functions_are_called_in_one_place() -> None:
    callers = [
        str(file.relative_to(ROOT))
        for file in FILES
        if any(name.startswith("captum._") for name in imports(file)) or "._attribute(" in file.read_text("utf-8")
    ]
    assert callers == ["kn_attrib/techniques/captum_internals.py"]


THEIRS = {
    "_compiled_call_impl",
    "_exit",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_is_amx_tile_supported",
    "_linear_pointwise",
    "_modules",
    "_orig_mod",
    "_parameters",
}
"""Private names of PyTorch and Python that have no public counterpart."""


def private(name: str | None) -> bool:
    return name is not None and name.startswith("_") and not name.startswith("__") and name != "_"


def back_doors(tree: ast.Module) -> Iterator[str]:
    """Private names that a file imports, passes as keywords, or takes from an object that it has not defined itself."""
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node.value)}
    known = own | THEIRS | {node.name for node in ast.walk(tree) if isinstance(node, Function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if private(alias.name))
        elif isinstance(node, ast.keyword) and private(node.arg):
            yield f"{node.arg}="
        elif isinstance(node, ast.Attribute) and private(node.attr) and not is_own(node.value) | (node.attr in known):
            yield ast.unparse(node)


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


CAPTUMS = {"kn_attrib/techniques/captum_internals.py": ["attr.IntegratedGradients(function)._attribute"]}


@every_file
def test_no_private_name_of_another_module(file: Path) -> None:
    found = set(back_doors(tree_of(file)))
    assert found <= set(CAPTUMS.get(str(file.relative_to(ROOT)), ())), found


@pytest.mark.parametrize(
    "code",
    [
        "from kn_attrib.store import _hidden",
        "replace(evaluator, _known={})",
        "other._known.clear()",
        "def f(a): a._b = 1",
    ],
)
def test_a_back_door_is_found(code: str) -> None:
    assert list(back_doors(ast.parse(code)))
