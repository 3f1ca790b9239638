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


def test_other_errors_that_cannot_be_raised_are_still_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "__unraisablehook__", shown.append)
    monkeypatch.setattr(sys, "unraisablehook", main._interrupt_again)

    class Thing:
        pass

    def broken(_: object) -> None:
        raise ValueError("broken")

    thing = Thing()
    reference = weakref.ref(thing, broken)
    del thing
    assert reference() is None
    assert len(shown) == 1
