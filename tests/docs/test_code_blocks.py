"""Every block of code in docs/ runs and prints what the page says; every command names what the program has.

A block is left out where a comment says why: ``<!-- not run: REASON -->`` on the line before it.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kn_attrib.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
"""A fenced block; a comment right before it, which readers of the source see, takes it out of the tests."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes
    ----------
    line : where it begins, for messages.
    reason : why it is not run; empty if it is.
    """

    page: Path
    kind: str
    text: str
    line: int
    reason: str


def pages() -> list[Path]:
    """All pages in Markdown."""
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    source = page.read_text(encoding="utf-8")
    return [
        Block(page, found["kind"], found["text"], source.count("\n", 0, found.start("text")), found["reason"] or "")
        for found in FENCE.finditer(source)
    ]


def printing(page: Path) -> list[tuple[Block, str]]:
    """A page's Python blocks, each with the text block that follows it at once: what it prints (empty: not said)."""
    found = blocks(page)
    following = [*found[1:], None]
    return [
        (block, after.text if after is not None and after.kind == "text" else "")
        for block, after in zip(found, following, strict=True)
        if block.kind == "python"
    ]


NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?")


def skeleton(text: str) -> tuple[str, list[str]]:
    """A text without its numbers and with single spaces, and its numbers."""
    return re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip(), NUMBER.findall(text)


def same_output(printed: str, expected: str, tolerance: float = 0.05) -> bool:
    """Whether two outputs say the same: words and whole numbers to the letter, decimals up to rounding."""
    words, numbers = skeleton(printed)
    expected_words, expected_numbers = skeleton(expected)
    if words != expected_words or len(numbers) != len(expected_numbers):
        return False
    return all(_close(*pair, tolerance) for pair in zip(numbers, expected_numbers, strict=True))


def _close(one: str, other: str, tolerance: float) -> bool:
    if "." not in other:
        return one == other
    values = [float(number.replace("−", "-")) for number in (one, other)]
    # Two units of the last digit that is shown, or a small share: matrix products differ between machines.
    unit = 2.01 * 10.0 ** -len(other.split(".")[1])
    return abs(values[0] - values[1]) <= max(unit, tolerance * abs(values[1]))


ELSEWHERE = {"architecture.md", "units.md"}
"""Pages whose Python is run by the tests of what it shows (tests/house/test_architecture_page.py, tests/units)."""

SMALLER = {"protocols.md": ("limit=17", "limit=2")}
"""What a page's code is made quicker by: facts into which something is written take seconds each."""


def to_run() -> list[Path]:
    found = [page for page in pages() if str(page.relative_to(DOCS)) not in ELSEWHERE]
    return [page for page in found if any(block.kind == "python" for block in blocks(page))]


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, registry: object) -> dict[str, object]:
    """Names of a page's own; dataclasses look the module of their class up."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    return vars(module)


@pytest.mark.filterwarnings("default::kn_attrib.scoring.score.SkippedPromptWarning")
@pytest.mark.parametrize("page", to_run(), ids=lambda page: str(page.relative_to(DOCS)))
def test_python_runs_and_prints_what_the_page_says(
    page: Path,
    namespace: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if any("knowledge_neurons" in block.text for block, _ in printing(page)):
        pytest.importorskip("knowledge_neurons", reason="the page compares with a package that is not installed")
    monkeypatch.chdir(tmp_path)
    for block, expected in printing(page):
        if block.reason:
            continue
        # The block's own lines in tracebacks.
        text = block.text.replace(*SMALLER.get(page.name, ("", "")))
        code = compile("\n" * block.line + text, str(page), "exec", dont_inherit=True)
        exec(code, namespace)
        printed = capsys.readouterr().out
        assert same_output(printed, expected) or not expected, f"{page.name}:{block.line} prints\n{printed}"


def commands() -> list[tuple[Block, list[str]]]:
    """The words of every ``kn-attrib`` line of every console block, behind the program's name."""
    found = []
    for block in (block for page in pages() for block in blocks(page) if block.kind == "console"):
        text = block.text.replace("\\\n", "") if '"' in block.text else re.sub(r"\\\n\s*", " ", block.text)
        for line in text.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\w+", words[0]):
                words.pop(0)
            if words[:1] == ["kn-attrib"]:
                found.append((block, words[1:]))
    return found


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, of the program's tree, and the words behind its name."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"{name!r} is none of {sorted(command.commands)}"
        command = command.commands[name]
    return command, words


@pytest.mark.parametrize(
    ("block", "words"), commands(), ids=lambda each: " ".join(each)[:60] if isinstance(each, list) else each.page.name
)
def test_commands_and_options_exist(
    block: Block, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for settings in (each.text for each in blocks(block.page) if each.kind == "yaml"):
        (tmp_path / "run.yaml").write_text(settings, encoding="utf-8")
    if words == ["--version"]:
        assert CliRunner().invoke(app, words).exit_code == 0
        return
    command, arguments = command_of(words)
    with command.make_context(command.name, list(arguments)) as context:  # parses and checks, and does nothing
        assert context.params
        assert not context.params.get("overwrite"), "pages do not tell readers to write over what they have"


@pytest.mark.parametrize("words", [["compare", "--no-such-option", "1"], ["score", "--limit", "many"]], ids=str)
def test_a_wrong_option_is_found(words: list[str]) -> None:
    command, arguments = command_of(words)
    with pytest.raises(Exception, match=r"no-such-option|valid integer"):
        command.make_context(command.name, list(arguments))


def quick() -> list[list[str]]:
    """Commands that take a second or two and nothing that a page's reader would have made before."""
    found = [words for _, words in commands() if words[0] in ("facts", "methods", "models")]
    alone = [words for words in found if not {"--plugin", "--facts"} & set(words)]
    return [words for words in alone if not any("/" in word or ".gguf" in word for word in words)]


@pytest.mark.parametrize("words", quick(), ids=shlex.join)
def test_quick_commands_run(words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) > 3


def test_nothing_is_collected_from_nowhere() -> None:
    python = [block for page in to_run() for block in blocks(page) if block.kind == "python"]
    said = [block for page in to_run() for block, expected in printing(page) if expected]
    print(f"{len(python)} Python blocks of {len(to_run())} pages, {len(said)} with output; {len(commands())} commands")
    assert len(python) >= 35
    assert len(said) >= 20
    assert len(commands()) >= 30


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("p: 0.75 of 17 facts", True),
        ("p:  0.77\nof 17 facts", True),
        ("p: 0.80 of 17 facts", False),
        ("p: −0.75 of 17 facts", False),
        ("p: 0.75 of 18 facts", False),
        ("p: 0.75 of 17 prompts", False),
        ("p: 0.75 of 17 facts, 3 left out", False),
    ],
)
def test_outputs_are_the_same_but_for_their_last_digits(printed: str, same: bool) -> None:
    assert same_output(printed, "p: 0.75 of 17 facts\n") is same
