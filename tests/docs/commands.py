"""The commands that pages show: found, classified, and compared with what they really print.

A page shows a command in a ``console`` block, behind a prompt that may name the machine
(``first$``) and with what it prints below it; in an ``sh`` block, with what it prints in an unnamed
block after it; or inline in backquotes. Each is either followed for real (:data:`FOLLOWED`) or
parsed down to its options alone, for a reason (:data:`PARSED_ONLY`).
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from p2pnode.interfaces.cli.commands import cli

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "simulations" / "README.md", *sorted(ROOT.glob("docs/**/*.md")))

_BLOCK = re.compile(
    r"^```(console|sh)\n(.*?)^```$(?:\n\n^```\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^(\w*)\$\s+(.*)$")
_INLINE = re.compile(r"`([^`]+)`")
_PROGRAMS = ("p2pnode", "make", "git", "pip", "kill", "nohup", "python", "python3")
_LABELS = re.compile(r"p2pnode (psk|mac1|cookie|swarm|transport 1|membership 1)")
"""What the protocol hashes: no command, though it begins like one."""


FOLLOWED = ("README.md", "docs/tutorial.md", "docs/guides/simulate.md")
"""Pages that tests/e2e/test_pages.py follows, command by command."""

PARSED_ONLY = {
    r"make (demo|test|test-engines|check|fuzz|docs)": "sets up a virtual environment first",
    r"git clone .*|cd .*|pip install .*": "what a clone is, this test has already",
    r"kill .*": "the test of the tutorial kills in its own way",
    r"p2pnode demo.*": "tests/e2e/test_demo.py runs it",
    r"p2pnode top.*": "needs a terminal; tests/e2e/test_cli.py runs it",
    r"p2pnode up --detach": "tests/e2e/test_detach.py runs it",
    r"p2pnode up --http 8080": "tests/e2e/test_http_face.py runs it, at a free port",
    r"p2pnode service .*": "changes the account's services; tests/interfaces/service runs a unit",
    r"podman .*": "needs an engine; tests/test_wheel.py does what the image does",
    r"p2pnode join CODE": "the tutorial joins with a real code",
    r"p2pnode simulate .*/(peer-death|hostile-members)\.toml": "takes minutes; see tests/testing",
    r"p2pnode simulate .* --baseline .*": "takes half a minute; see tests/testing",
    r"p2pnode (models|up --model) .*": "needs a hub; see tests/interfaces/cli/test_models.py",
    r"p2pnode generate --model .*": "needs several models; see tests/e2e/test_two_models.py",
    r"p2pnode embed .*": "needs the model; see tests/interfaces/cli/test_embed.py",
    r"p2pnode serve.*": "goes on until it is stopped; tests/e2e/test_api_clients.py asks it",
    r"p2pnode bench .*": "measures for minutes; see tests/bench",
    r"p2pnode up --when .*": "tests/e2e/test_lent.py runs it",
}
"""Commands in blocks that no test runs as they stand, and why."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a page shows.

    Attributes:
        page: The file, from the project's folder.
        line: Where it stands.
        text: The command, without prompt and comment.
        machine: The word before the prompt; empty for none.
        output: The lines that the page shows below it.
        inline: Whether it stands in a sentence, where its arguments may be left out.
    """

    page: str
    line: int
    text: str
    machine: str = ""
    output: tuple[str, ...] = ()
    inline: bool = False

    @property
    def words(self) -> list[str]:
        """The words of the command; the project's own program is ``p2pnode`` however called."""
        words = shlex.split(self.text, comments=True)
        return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in its order."""
    text = page.read_text("utf-8")
    name = str(page.relative_to(ROOT))
    found = [*_of_blocks(name, text), *_of_sentences(name, text)]
    return sorted(found, key=lambda command: command.line)


def why_not_followed(command: Command) -> str | None:
    """Say why nobody runs a command as it stands; None where a test does."""
    said = " ".join(command.words)
    reasons = (why for pattern, why in PARSED_ONLY.items() if re.fullmatch(pattern, said))
    return next(reasons, None)


def inline_options(page: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of each option that a page mentions by itself, as ``--wait``."""
    text = _without_blocks(page.read_text("utf-8"))
    for match in _INLINE.finditer(text):
        option = re.match(r"--[a-z][a-z-]+", match[1])
        if option:
            yield _line(text, match.start()), option[0]


def parse(command: Command) -> None:
    """Parse a command of ours down to its options, without running it.

    Raises:
        AssertionError: It does not exist so; the message names page and line.
    """
    program, *words = command.words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        targets = re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)
        assert {word for word in words if "=" not in word} <= set(targets), str(command)
    if program != "p2pnode":
        return
    known: click.Command = cli
    context = click.Context(cli, info_name="p2pnode")
    while isinstance(known, click.Group) and words:
        if words[0].startswith("-"):
            break
        name = words.pop(0)
        inner = known.get_command(context, name)
        assert inner is not None, f"{command}: there is no command {name!r}"
        known = inner
        context = click.Context(known, parent=context, info_name=name)
    if isinstance(known, click.Group):
        assert command.inline or words in (["--help"], ["-h"]), f"{command}: no command"
        return  # a whole group, as in "see `p2pnode bench`"
    try:
        known.make_context(context.info_name, [*words], parent=context.parent)
    except click.exceptions.Exit:
        return  # --help
    except click.MissingParameter:
        assert command.inline, f"{command}: an argument is missing"
    except click.UsageError as error:
        message = error.format_message()
        if not command.inline or not re.search(r"No such file|does not exist", message):
            raise AssertionError(f"{command}: {message}") from error


def compare(command: Command, got: Sequence[str]) -> None:
    """Check that the lines a page shows came in that order; others may stand between.

    Raises:
        AssertionError: One did not; the message has page and line, what was expected and got.
    """
    rest = iter(got)
    for number, expected in enumerate(command.output):
        pattern = shape(expected)
        assert any(pattern.fullmatch(line.strip()) for line in rest), (
            f"{command}\n  expected (line {command.line + 1 + number} of the page, whose numbers, "
            f"ids and codes may differ):\n    {expected}\n  got:\n    " + "\n    ".join(got)
        )


_VARIABLE = re.compile(
    r"(?P<code>p2p1-[\w.]+)|(?P<rest>\.\.\.)|(?P<hex>\b(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b)"
    r"|(?P<number>\d+(?:\.\d+)*)|(?P<space>\s+)"
)
_SHAPES = {
    "code": r"p2p1-\S+",
    "rest": r".*",
    "hex": r"[0-9a-f]{8,64}",
    "number": r"\d+(?:\.\d+)*",
    "space": r"\s+",
}


def shape(line: str) -> re.Pattern[str]:
    """Return what lines are like this one, but for numbers, ids, codes and the space between."""
    pattern, at = "", 0
    stripped = line.strip()
    for match in _VARIABLE.finditer(stripped):
        pattern += re.escape(stripped[at : match.start()]) + _SHAPES[str(match.lastgroup)]
        at = match.end()
    return re.compile(pattern + re.escape(stripped[at:]))


def _of_blocks(page: str, text: str) -> Iterator[Command]:
    for block in _BLOCK.finditer(text):
        first = _line(text, block.start(2))
        lines = block[2].splitlines()
        if block[1] == "sh":
            lines = [f"$ {line}" for line in lines if line.strip()]
        starts = [number for number, line in enumerate(lines) if _PROMPT.match(line)]
        for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
            prompt = _PROMPT.match(lines[start])
            assert prompt is not None
            after = lines[start + 1 : stop]
            if stop == len(lines) and block[3]:
                after = block[3].splitlines()
            said = tuple(line for line in after if line.strip())
            for one in _joined(prompt[2]):
                yield Command(page, first + start, one, prompt[1], said)


def _joined(line: str) -> list[str]:
    """Take ``a && b`` apart."""
    bare = shlex.join(shlex.split(line, comments=True)).replace("'&&'", "&&")
    return [part.strip() for part in bare.split("&&")]


def _of_sentences(page: str, text: str) -> Iterator[Command]:
    text = _without_blocks(text)
    for match in _INLINE.finditer(text):
        said = " ".join(match[1].split())
        program = said.split(" ")[0].removeprefix(".venv/bin/")
        if program in _PROGRAMS and " " in said and not _LABELS.fullmatch(said):
            yield Command(page, _line(text, match.start()), said, inline=True)


def _without_blocks(text: str) -> str:
    """Blank fenced blocks, and leave each line where it is."""
    return _FENCED.sub(lambda block: "\n" * block[0].count("\n"), text)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
