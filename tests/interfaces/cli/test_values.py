"""What a node is called where nobody says."""

import pytest

from p2pnode.interfaces.cli.values import MOST_NAME, node_name


@pytest.mark.parametrize(
    ("host", "taken", "name"),
    [
        ("attic", (), "attic"),
        ("attic", ("kitchen",), "attic"),
        ("attic", ("attic",), "attic-2"),
        ("attic", ("attic", "attic-2", "attic-4"), "attic-3"),
        ("", ("node",), "node-2"),
        ("é" * 40, ("é" * 16,), "é" * 15 + "-2"),
    ],
)
def test_two_nodes_of_one_machine_have_two_names(
    host: str, taken: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert node_name(None, taken) == name
    assert len(name.encode()) <= MOST_NAME
    assert node_name("attic", ("attic",)) == "attic"  # as its owner says
