"""Compiled and pure cores tell the same story, and what does not load runs pure with one line.

Each test starts processes of its own: a process decides once how its cores run.
"""

import ast
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import p2pnode
from p2pnode import compiled
from p2pnode.interfaces.doctor.python import report_cores

ROOT = Path(__file__).parent.parent
MADE = ROOT / "p2pnode" / "_compiled"
LIBRARY = "p2pnode__mypyc.so"


def python(*words: str, pure: str = "0", path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environment(path, pure),
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment(path: Path, pure: str = "0") -> dict[str, str]:
    return {**os.environ, "P2PNODE_PURE": pure, "PYTHONPATH": str(path)}


def cores(path: Path, pure: str = "0") -> tuple[str, list[str]]:
    """Return how the cores of a copy run, and what was logged; it is imported and used."""
    done = python(
        "-c",
        "import p2pnode, p2pnode.transport.frames as frames\n"
        "frames.decode_frames_untrusted(frames.Ack(((0, 3),), 0.0).encode(99))\n"
        "print(p2pnode.CORES.in_words())",
        pure=pure,
        path=path,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


@pytest.fixture(scope="module")
def usable() -> str:
    words, _ = cores(ROOT)
    if words != "compiled":
        pytest.skip(f"nothing usable is compiled here ({words}): make fast")
    return words


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package, without what was compiled."""
    leave_out = shutil.ignore_patterns("_compiled", "__pycache__", "calibrations", "*texts")
    shutil.copytree(ROOT / "p2pnode", tmp_path / "p2pnode", ignore=leave_out)
    return tmp_path


def put_library(copied: Path, content: bytes, *contents: str, size: int | None = None) -> Path:
    """Put something in the place of what is compiled for this Python, with its list."""
    tag = EXTENSION_SUFFIXES[0].split(".")[1]
    folder = copied / "p2pnode" / "_compiled" / tag
    folder.mkdir(parents=True)
    (folder / LIBRARY).write_bytes(content)
    size = len(content) if size is None else size
    first = f"{LIBRARY} {size} {len(contents)}"
    (folder / "contents").write_text("\n".join([first, *contents, ""]))
    return folder


def test_asked_to_be_compiled_they_are() -> None:
    """``make test-fast`` is of no use where they fell back."""
    if os.environ["P2PNODE_PURE"] != "0":
        pytest.skip("make test runs pure; make test-fast does not")
    assert compiled.Cores(is_compiled=True) == p2pnode.CORES


def test_the_same_seed_tells_the_same_story_compiled_and_pure(usable: str) -> None:
    stories = []
    for pure in "10":
        done = python("-m", "p2pnode.bench.swarm", pure=pure)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found.pop("cores").startswith("pure" if pure == "1" else usable)
        del found["seconds"]
        assert found["tokens"][0]
        stories.append(json.dumps(found))
    assert stories[0] == stories[1]


def test_where_nothing_is_compiled_nothing_is_said(copied: Path) -> None:
    assert cores(copied) == ("pure", [])


def test_asked_for_pure_nothing_else_is_looked_at(copied: Path) -> None:
    put_library(copied, b"\x7fELF", "p2pnode.errors", size=99)
    assert cores(copied, pure="1") == ("pure: P2PNODE_PURE=1 asks for it", [])


@pytest.mark.parametrize(
    ("content", "size", "why"),
    [
        (b"\x7fELF" + bytes(2000), 1 << 20, "is broken: it has 2004 bytes, not 1048576"),
        (b"", 1 << 20, "is broken: it has 0 bytes"),
        (b"not a library at all" * 50, None, "does not load: "),
        (b"\x7fELF" + bytes(2000), None, "does not load: "),
    ],
)
def test_a_broken_library_falls_back_with_one_line(
    copied: Path, content: bytes, size: int | None, why: str
) -> None:
    put_library(copied, content, "p2pnode.errors", "p2pnode.wire.vframe", size=size)
    words, logged = cores(copied)
    assert words.startswith(f"pure: {LIBRARY} {why}")
    assert len(logged) == 1
    assert why in logged[0]


def test_a_missing_library_falls_back_with_one_line(copied: Path) -> None:
    (put_library(copied, b"", "p2pnode.errors") / LIBRARY).unlink()
    words, logged = cores(copied)
    assert words == f"pure: {LIBRARY} is not there"
    assert len(logged) == 1


@pytest.mark.parametrize("text", ["", "no list", "a b c d\n", "a.so x\n", "a.so 4\nb c d\n", "\0"])
def test_a_broken_list_falls_back_with_one_line(copied: Path, text: str) -> None:
    (put_library(copied, b"") / "contents").write_text(text)
    words, logged = cores(copied)
    assert words == "pure: the list of what is compiled is broken"
    assert len(logged) == 1


def test_one_for_another_python_is_named(copied: Path) -> None:
    (copied / "p2pnode" / "_compiled" / "cpython-39-of-old").mkdir(parents=True)
    words, logged = cores(copied)
    assert words == "pure: what is compiled is for cpython-39-of-old, not for this Python"
    assert len(logged) == 1


@pytest.mark.parametrize("change", ["longer", "as long"])
def test_a_source_that_changed_is_named(copied: Path, change: str) -> None:
    source = copied / "p2pnode" / "errors.py"
    status = source.stat()
    put_library(copied, b"x", f"p2pnode.errors {status.st_size} {status.st_mtime_ns - 1} 0")
    if change == "longer":
        source.write_text(source.read_text() + "\n")
    assert cores(copied)[0] == "pure: p2pnode.errors has changed since; make fast compiles it anew"


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_source_that_is_gone_or_lends_constants_is_named(copied: Path, is_watched: bool) -> None:
    """What is left pure counts too: compiled code has its constants in itself."""
    name = "p2pnode.values" if is_watched else "p2pnode.no_more"
    put_library(copied, b"x", f"{'watched ' if is_watched else ''}{name} 7 0 0")
    assert cores(copied)[0] == f"pure: {name} has changed since; make fast compiles it anew"


def test_a_list_that_was_cut_off_is_not_half_believed(copied: Path) -> None:
    folder = put_library(copied, b"x", "p2pnode.errors", "p2pnode.sansio")
    lines = (folder / "contents").read_text().splitlines()
    (folder / "contents").write_text("\n".join(lines[:-1]))
    assert cores(copied)[0] == "pure: the list of what is compiled is cut off; make fast"


def test_a_library_that_lacks_a_module_is_not_used(copied: Path, usable: str) -> None:
    del usable
    shutil.copytree(MADE, copied / "p2pnode" / "_compiled")
    (contents,) = (copied / "p2pnode" / "_compiled").glob("*/contents")
    first, *names = contents.read_text().splitlines()
    names = [name.split()[0] for name in names if not name.startswith("watched")]
    library, size, _ = first.split()
    names.append("p2pnode.values")
    contents.write_text("\n".join([f"{library} {size} {len(names)}", *names, ""]))
    words, logged = cores(copied)
    assert words == f"pure: {library} lacks p2pnode.values; make fast compiles it anew"
    assert len(logged) == 1


def test_a_command_says_the_line_once_and_does_its_work(copied: Path) -> None:
    put_library(copied, b"no library", "p2pnode.errors")
    done = python("-m", "p2pnode", "--version", path=copied)
    assert done.returncode == 0
    assert "pure: " in done.stdout
    assert "does not load" in done.stdout
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def halved(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a copy whose library is cut in half: the real one, where it is here."""
    real = next(MADE.glob("*/*.so"), None)
    whole = b"\x7fELF" + bytes(4000) if real is None else real.read_bytes()
    put_library(copied, whole[: len(whole) // 2], "p2pnode.errors", size=len(whole))
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:  # no other node is known there
        for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):
            monkeypatch.setenv(variable, runtime)
        yield copied


def test_the_doctor_finds_a_library_that_is_cut_in_half(halved: Path) -> None:
    state = str(halved / "state")
    words = ("doctor", "--json", "--model", "none", "--state", state)
    done = python("-m", "p2pnode", *words, path=halved)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)  # whatever else is found on this machine
    (finding,) = [one for one in found["findings"] if one["topic"] == "cores"]
    assert finding["verdict"] == "warn"
    assert finding["what"].startswith(f"pure: {LIBRARY} is broken: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_node_whose_library_is_cut_in_half_serves_and_says_so_in_one_line(halved: Path) -> None:
    state, words = halved / "state", ("up", "--model", "none", "--no-mdns", "--json")
    where = ("--listen", "127.0.0.1", "--port", "0", "--state", str(state))
    node = subprocess.Popen(
        [sys.executable, "-m", "p2pnode", *words, *where],
        env=environment(halved),
        cwd=halved,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert node.stdout is not None
        assert json.loads(node.stdout.readline())["listening"]
        node.send_signal(signal.SIGTERM)
        _, said = node.communicate(timeout=30)
    finally:
        node.kill()
        node.wait()
    assert node.returncode == 0
    assert said.count("runs pure") == 1
    assert "Traceback" not in said
    log = (state / "log").read_text()
    assert log.count(f"the cores run pure: {LIBRARY} is broken: ") == 1
    assert log.count("pure") == 1


def test_the_processes_of_one_that_fell_back_do_as_it_does_in_silence(copied: Path) -> None:
    put_library(copied, b"no library", "p2pnode.errors")
    child = "import p2pnode; print(p2pnode.CORES.why)"
    parent = f"import subprocess, sys, p2pnode; subprocess.run([sys.executable, '-c', {child!r}])"
    done = python("-c", parent, path=copied)
    assert "does not load" in done.stdout
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (compiled.Cores(is_compiled=True), "ok"),
        (compiled.Cores(is_compiled=False), "ok"),
        (compiled.Cores(is_compiled=False, why="P2PNODE_PURE=1 asks for it"), "ok"),
        (compiled.Cores(is_compiled=False, why="it is broken"), "warn"),
    ],
)
def test_the_doctor_warns_of_a_fall_alone(found: compiled.Cores, verdict: str) -> None:
    finding = report_cores(found)
    assert (finding.verdict, finding.what) == (verdict, found.in_words())


def test_without_a_compiler_one_sentence_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, ".ci/compile_cores.py"],
        env={**os.environ, "CC": "no-such-compiler"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "error: compiling needs a C compiler (no-such-compiler)" in done.stderr
    assert "apt install" in done.stderr


def test_every_module_of_a_room_is_compiled_or_left_out_for_a_reason() -> None:
    listed = "import sys; sys.path.insert(0, '.ci'); import compile_cores as c; "
    done = python("-c", f"{listed} print(*c.listed_modules())")
    modules = done.stdout.split()
    assert len(modules) > 150, done.stderr
    assert len(set(modules)) == len(modules)
    assert {"p2pnode.errors", "p2pnode.transport.connection", "p2pnode.node.core"} <= set(modules)
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_no_function_of_a_compiled_module_catches_two_types_by_one_name() -> None:
    """Compiled, the name takes the first type alone: whatever is caught next is a TypeError."""
    compile_cores = tool("compile_cores")
    for module in compile_cores.listed_modules():
        tree = ast.parse(compile_cores.source_of(module).read_text("utf-8"))
        for function in (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ):
            caught = defaultdict[str, set[str]](set)
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                    caught[node.name].add(ast.unparse(node.type))
            assert all(len(types) == 1 for types in caught.values()), (module, function.name)


def test_what_compiled_code_leans_on_is_watched_by_way_of_others_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_cores = tool("compile_cores")
    monkeypatch.setattr(compile_cores, "ROOT", tmp_path)
    room = tmp_path / "p2pnode" / "room"
    room.mkdir(parents=True)
    sources = {
        "compiled": "from p2pnode.room import whole\nfrom p2pnode.room.part import Part",
        "whole": "",
        "part": "import struct\ndef later():\n    import p2pnode.room.deep",
        "deep": "from p2pnode.room.compiled import x",
        "unused": "",
    }
    for name, source in sources.items():
        (room / f"{name}.py").write_text(source)
    watched = compile_cores._watched(["p2pnode.room.compiled"])
    assert watched == ["p2pnode.room.deep", "p2pnode.room.part", "p2pnode.room.whole"]


@pytest.mark.skipif(sys.platform == "win32", reason="waits for nobody there")
def test_a_wheel_waits_for_another_compilation_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All write the same files under ``build``, and compile what another may be writing."""
    import fcntl

    compile_cores = tool("compile_cores")
    monkeypatch.setattr(compile_cores, "KEPT", str(tmp_path / "kept"))
    monkeypatch.setattr(compile_cores, "_require_compiler", lambda: None)
    met: list[str] = []

    def compiled_to(modules: list[str], work: Path, jobs: int) -> Path:
        with (tmp_path / "kept" / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                met.append("held")
        (work / "made").touch()
        return work / "made"

    monkeypatch.setattr(compile_cores, "_compile", compiled_to)
    (tmp_path / "wheel" / "building-x").mkdir(parents=True)  # of one that was killed
    library = compile_cores.compile_into(tmp_path / "wheel", jobs=1, is_checkout=False)
    assert met == ["held"]
    assert sorted(path.name for path in library.parent.iterdir()) == ["contents", library.name]
    assert [path.name for path in (tmp_path / "wheel").iterdir()] == [library.parent.name]


def test_of_each_source_only_the_objects_used_last_are_kept(tmp_path: Path) -> None:
    compile_cores = tool("compile_cores")
    names = [f"{source}-{number}.o" for number in range(5) for source in ("__init", "__a-b", "x")]
    for used, name in enumerate([*names, "once-0.o"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (used, used))
    compile_cores._forget_old(tmp_path, [tmp_path / "x-0.o", tmp_path / "gone-0.o"])
    kept = {*names[-9:], "once-0.o", "x-0.o"} - {"x-2.o"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_what_is_compiled_for_speed_exists() -> None:
    compile_cores = tool("compile_cores")
    names = {one.removeprefix("p2pnode.") for one in compile_cores.listed_modules()}
    rooms = {one.partition(".")[0] for one in names}
    assert names | rooms >= compile_cores._HOT
    assert names >= compile_cores._COLD


SMALL = '''"""Samples."""

from dataclasses import dataclass, field
from typing import ClassVar

import struct

from p2pnode.values import value

_PAIR = struct.Struct("<HH")
LIMIT = 1 << 4
WORD = b"word"
COUNT = 0


@value
class Key:
    """A key; "of two"."""

    number: int
    name: str = "none"  # as long as nobody asks


@dataclass(frozen=True, slots=True)
class Checked:
    """Checked.

    Attributes:
        size: Below the limit.
    """

    size: int
    """In bytes."""
    parts: dict[str, int] = field(default_factory=dict)
    low: int = -1
    high: int = LIMIT

    def __post_init__(self) -> None:
        if self.size >= LIMIT:
            raise ValueError(self.size)


@value
class Nothing:
    """Without fields."""


@dataclass(slots=True, eq=False)
class Left:
    """Its decorator says what is not understood."""

    size: int


@value
class Wide:
    """More fields than a key has."""

    one: int
    two: int = 2
    three: int = 3
    four: int = 4


@value
class Based(Key):
    """More than its base has."""

    size: int = 0


@value
class Shared:
    """With what all of them have."""

    size: int
    most: ClassVar[int] = 3


@value
class Late:
    """With a field after a method."""

    size: int

    def twice(self) -> int:
        return 2 * self.size

    more: int = 7


@value
class Perhaps:
    """None is another value than none."""

    parts: tuple[int, ...] | None = field(default_factory=tuple)


class _Plain:
    """Without a decorator."""


def count() -> int:
    global COUNT
    COUNT += 1
    return COUNT

'''


def tool(name: str) -> ModuleType:
    """Return a module of ``.ci``, which is no package."""
    if str(ROOT / ".ci") not in sys.path:
        sys.path.append(str(ROOT / ".ci"))
    return importlib.import_module(name)


def written_out(source: str) -> str:
    result: str = tool("written_out").write_out(source)
    return result


def test_a_class_written_out_is_what_its_decorator_makes() -> None:
    sources = SMALL, written_out(SMALL)
    assert sources[1].count("@_written_out") == 4
    stories = []
    for source in sources:
        made: dict[str, Any] = {"__name__": "samples"}
        sys.modules["samples"] = made["module"] = type(sys)("samples")
        exec(source, made)
        key, checked = made["Key"], made["Checked"]
        with pytest.raises(ValueError, match="16"):
            checked(16)
        stories.append(
            (
                repr(
                    [key(1), key(2, name="b"), checked(3), made["Nothing"](), made["Left"](1).size]
                ),
                [key(1) == key(1), key(1) == key(2), key(1) == 1, len({key(1), key(1)})],
                [made["Nothing"]() == made["Nothing"](), checked(1) == checked(1)],
                [
                    hash(key(1)),
                    replace(key(1), name="c").name,
                    checked(1).parts is checked(2).parts,
                ],
                [key.__match_args__, key.__doc__, [one.name for one in fields(checked)]],
                [hash(made["Wide"](1)), repr(made["Based"](1, "b", 2)), made["Shared"](1).most],
                repr([made["Late"](1, 2), made["Perhaps"](), made["Perhaps"](None)]),
            )
        )
    del sys.modules["samples"]
    assert stories[0] == stories[1]


def test_what_is_written_out_keeps_its_lines() -> None:
    written = written_out(SMALL)
    assert len(written.splitlines()) == len(SMALL.splitlines())
    for line in ("class Checked:", "    def __post_init__(self) -> None:", "class Left:"):
        assert written.splitlines().index(line) == SMALL.splitlines().index(line)


def test_numbers_and_structs_are_said_to_be_constant() -> None:
    written = written_out(SMALL).splitlines()
    assert '_PAIR: _Fixed = struct.Struct("<HH")' in written
    assert "LIMIT: _Fixed = 1 << 4" in written
    assert 'WORD = b"word"' in written
    assert "COUNT = 0" in written


@pytest.mark.parametrize(
    ("module", "values"),
    [
        ("transport/frames", 7),
        ("transport/events", 8),
        ("transport/recovery", 2),
        ("wire/vframe", 2),
        ("inference/work", 5),
        ("membership/timers", 12),
    ],
)
def test_the_values_that_datagrams_make_are_written_out(module: str, values: int) -> None:
    source = (ROOT / "p2pnode" / f"{module}.py").read_text("utf-8")
    written = written_out(source)
    assert written.count("@_written_out") >= values
    assert not [line for line in written.splitlines() if line.startswith(("@value", "@dataclass"))]
