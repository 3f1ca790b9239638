"""What ``peers`` shows, and whom a command without a node names."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import look_commands, running_node, stopping
from p2pnode.interfaces.cli.running_node import connect
from p2pnode.interfaces.tui.example import lonely, minute
from p2pnode.net.local_nodes import LocalNode
from p2pnode.node.peer_snapshot import OfferView, counted
from p2pnode.node.snapshot import ModelView

HERE = Path("/srv/here")


def local(name: str) -> LocalNode:
    return LocalNode(Path("/srv", name), Path("/srv", name, "log"), name, "ab" * 32, 4711)


@pytest.mark.parametrize(
    ("running", "said", "hint"),
    [
        ((), "no node runs on /srv/here", "start one: p2pnode up --state /srv/here"),
        (
            ("attic",),
            "no node runs on /srv/here; one runs on /srv/attic (attic, process 4711)",
            "p2pnode peers --state /srv/attic",
        ),
        (
            ("attic", "b c"),
            (
                "no node runs on /srv/here; 2 run elsewhere: /srv/attic (attic, process 4711); "
                "/srv/b c (b c, process 4711)"
            ),
            "choose one of them, e.g. p2pnode peers --state /srv/attic",
        ),
    ],
)
def test_the_nodes_that_run_elsewhere_are_named(
    monkeypatch: pytest.MonkeyPatch, running: tuple[str, ...], said: str, hint: str
) -> None:
    monkeypatch.setattr(running_node, "local_nodes", lambda: [local(name) for name in running])
    with pytest.raises(UserError) as caught:
        connect(HERE, "peers")
    assert (str(caught.value), caught.value.hint) == (said, hint)


@pytest.mark.parametrize("running", [(), ("attic",), ("attic", "study")])
def test_no_other_node_is_proposed_for_one_that_was_to_end(
    monkeypatch: pytest.MonkeyPatch, running: tuple[str, ...]
) -> None:
    monkeypatch.setattr(running_node, "local_nodes", lambda: [local(name) for name in running])
    with pytest.raises(UserError, match="no node runs on /srv/here") as caught:
        connect(HERE, "stop")
    assert caught.value.hint == "nothing is left to stop there"


def test_a_crowd_of_nodes_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_node, "local_nodes", lambda: [local(f"n{i}") for i in range(20)])
    with pytest.raises(UserError, match=r"20 run elsewhere.*; and 12 more$"):
        connect(HERE, "peers")


def test_who_is_gone_comes_last_with_its_name_and_is_not_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (picture,) = list(minute())[-1:]
    gone = replace(picture.peers[0], name="attic", state="left", gone_s=130.0)
    shown = replace(picture, peers=(gone, *picture.peers[1:3]), pid=4712)
    monkeypatch.setattr(look_commands, "look", lambda state: shown)
    look_commands.peers.main(["--state", "/srv/here"], standalone_mode=False)
    rows = capsys.readouterr().out.splitlines()
    assert "4712" in rows[1].split()
    assert rows[4].startswith("attic ")
    assert "left 2m 10s ago" in rows[4]
    assert rows[-1].startswith("2 peers, 1 gone, swarm ")


def test_peers_are_counted_in_words() -> None:
    (picture,) = list(minute())[-1:]
    one = replace(picture.peers[0], state="serving")
    assert counted(()) == "0 peers"
    assert counted((one,)) == "1 peer"
    assert counted((one, one, replace(one, state="dead"))) == "2 peers, 1 gone"
    assert counted((replace(one, state="seen"),)) == "0 peers, 1 only seen"
    assert not lonely().peers


@pytest.mark.parametrize("kind", ["", "dumb"])
def test_top_refuses_a_terminal_that_it_cannot_draw_on(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    for name in ("__stdin__", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, Terminal())
    monkeypatch.setenv("TERM", kind)
    with pytest.raises(UserError, match="TERM is") as caught:
        look_commands.top.main([], standalone_mode=False)
    assert "p2pnode peers" in caught.value.hint


def test_a_node_that_cannot_be_reached_is_named_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket was cleaned away, say: then it runs, and no command reaches it."""
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr("p2pnode.node.identity.psutil.Process", lambda pid: Running("p2pnode up"))
    monkeypatch.setattr(running_node, "BETWEEN", 0.0)
    with pytest.raises(UserError, match=rf"process {os.getpid()}\), and does not answer") as caught:
        running_node.connect(tmp_path, "peers")
    assert f"kill {os.getpid()}" in caught.value.hint
    monkeypatch.setattr("p2pnode.node.identity.psutil.Process", lambda pid: Running("vim"))
    with pytest.raises(UserError, match="no node runs on"):
        running_node.connect(tmp_path, "peers")


@pytest.mark.parametrize("becomes", ["up", "gone"])
def test_a_node_that_starts_or_leaves_is_waited_for(
    becomes: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks: list[float] = []

    class Socket:
        def __init__(self, path: Path, *, timeout: float | None) -> None:
            if becomes == "gone" or len(looks) < 3:
                raise UserError("no node is running here")

    def holder(directory: Path) -> int | None:
        return None if becomes == "gone" and len(looks) >= 3 else 4711

    monkeypatch.setattr(running_node, "ControlClient", Socket)
    monkeypatch.setattr(running_node, "lock_holder", holder)
    monkeypatch.setattr(stopping, "lock_holder", holder)
    monkeypatch.setattr("time.sleep", looks.append)
    found = running_node.reach(tmp_path)
    assert (found is not None) == (becomes == "up")
    assert len(looks) == 3
    said = capsys.readouterr().err
    assert said.count("(process 4711) is starting or leaving: waiting for it") == 1
    if becomes == "gone":
        looks.clear()
        assert stopping.stop_node(tmp_path, at_once=False) == (
            f"the node of {tmp_path} (process 4711)"
        )


class Running:
    def __init__(self, command: str) -> None:
        self._command = command

    def cmdline(self) -> list[str]:
        return self._command.split()


def test_who_computes_how_stands_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (picture,) = list(minute())[-1:]
    serving = replace(picture.peers[0], state="serving", layers=(10, 20), gone_s=None)
    peers = (
        replace(serving, name="attic", numerics="numpy 2.4/openblas/kv-f32"),
        replace(serving, name="cellar", numerics="ggml 0.26/avx2/kv-f16"),
        replace(serving, name="shed", numerics=""),
        replace(serving, name="far", numerics="jax", space_hash32=picture.space_hash32 ^ 1),
    )
    shown = replace(picture, name="here", peers=peers, numerics="numpy 2.4/openblas/kv-f32")
    monkeypatch.setattr(look_commands, "look", lambda state: shown)
    look_commands.peers.main(["--state", "/srv/here"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "\n  numpy 2.4/openblas/kv-f32: here, attic\n" in out
    assert "\n  ggml 0.26/avx2/kv-f16: cellar\n" in out
    assert "\n  not said: shed\n" in out
    assert "jax" not in out
    look_commands.peers.main(["--state", "/srv/here", "--json"], standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["numerics"] == "numpy 2.4/openblas/kv-f32"
    assert [peer["numerics"] for peer in facts["peers"]][:2] == [
        each.numerics for each in peers[:2]
    ]


def test_what_an_owner_allows_is_shown_and_why_the_node_rests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("memory 4 GiB", "quiet 22:00-07:00")
    picture = replace(lonely(), state="resting", reason="quiet hours until 07:00", limits=limits)
    monkeypatch.setattr(look_commands, "look", lambda state: picture)
    look_commands.peers.main(["--state", "/srv/here"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "resting" in out.splitlines()[1].split()
    assert out.splitlines()[1].endswith("quiet hours until 07:00")
    assert "\nlends at most: memory 4 GiB, quiet 22:00-07:00\n" in out
    look_commands.peers.main(["--state", "/srv/here", "--json"], standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["limits"], facts["owners_cpu"]) == (list(limits), None)


def test_another_version_has_a_column_and_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (picture,) = list(minute())[-1:]
    member = replace(picture.peers[0], state="serving", gone_s=None, software="0.2.0")
    alike = (replace(member, name="attic"), replace(member, name="shed", software=""))
    others = (
        replace(member, name="cellar", software="0.3.0"),
        replace(member, name="stranger", software="", state="seen"),
        replace(member, name="left", software="0.1.0", state="left", gone_s=1.0),
    )
    shown = replace(picture, name="here", software="0.2.0", peers=(*alike, *others))
    monkeypatch.setattr(look_commands, "look", lambda state: shown)
    look_commands.peers.main(["--state", "/srv/here"], standalone_mode=False)
    out = capsys.readouterr().out
    heading, *rows = out.splitlines()[:4]
    at = heading.index("VERSION")
    assert [row[at:].split()[0] for row in rows] == ["0.2.0", "0.2.0", "-"]
    told = out.split("\nversions other than this node's 0.2.0:\n")[1]
    assert told.startswith("  not said: shed\n  0.3.0: cellar\n\n")
    look_commands.peers.main(["--state", "/srv/here", "--json"], standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["software"] == "0.2.0"
    assert [peer["software"] for peer in facts["peers"]][:3] == ["0.2.0", "", "0.3.0"]
    for same in (
        replace(shown, peers=(alike[0], *others[1:])),
        replace(shown, software=""),  # an older node, which does not know its own
    ):
        monkeypatch.setattr(look_commands, "look", lambda state, same=same: same)
        look_commands.peers.main(["--state", "/srv/here"], standalone_mode=False)
        out = capsys.readouterr().out
        assert "VERSION" not in out
        assert "versions other" not in out


def test_layers_of_several_models_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    node = list(minute())[-1]
    views = (
        ModelView(node.model, "ab" * 32, node.space_hash32, 30, node.layers, "serving", ""),
        ModelView("other", "cd" * 32, 7, 12, (0, 6), "serving", "", missing_layers=((9, 12),)),
    )
    offers = (OfferView("x", node.space_hash32, 30, (10, 20)), OfferView("other", 7, 12, (6, 9)))
    attic = replace(node.peers[0], offers=offers)
    look_commands.tell_peers(replace(node, models=views, peers=(attic, *node.peers[1:])), {})
    said = capsys.readouterr().out
    assert "[0, 10), other [0, 6)" in said
    assert "[10, 20), other [6, 9)" in said
    assert "no live peer serves layers [9, 12) of other" in said
