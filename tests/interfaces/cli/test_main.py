import sys
import time
import weakref

import pytest

from p2pnode.interfaces.cli import main


def test_a_ctrl_c_where_nothing_can_be_raised_is_neither_lost_nor_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", main._interrupt_again)

    class Thing:
        pass

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    thing = Thing()
    reference = weakref.ref(thing, interrupted)
    del thing
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert reference() is None
    assert "Traceback" not in capsys.readouterr().err


def test_other_errors_that_cannot_be_raised_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[object] = []
    monkeypatch.delenv("P2PNODE_DEBUG", raising=False)
    monkeypatch.setattr(sys, "__unraisablehook__", shown.append)
    monkeypatch.setattr(sys, "unraisablehook", main._interrupt_again)

    class Thing:
        pass

    def broken(_: object) -> None:
        raise ValueError("broken")

    for wanted in (0, 1):
        thing = Thing()
        reference = weakref.ref(thing, broken)
        del thing
        assert reference() is None
        assert len(shown) == wanted
        monkeypatch.setenv("P2PNODE_DEBUG", "1")
    told = "p2pnode: an error passed over: ValueError: broken (P2PNODE_DEBUG=1 shows where)\n"
    assert capsys.readouterr().err == told
