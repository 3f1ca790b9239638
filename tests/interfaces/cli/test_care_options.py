"""What an owner lets a node have: how it is said, what it becomes, and what is refused by name."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli.care_options import (
    Care,
    Hours,
    Size,
    give_way,
    kv_bytes_of,
    limits_of,
    rest_of,
)
from p2pnode.interfaces.cli.node_options import UpOptions
from p2pnode.interfaces.cli.settings import settings_of
from p2pnode.node.quiet_hours import QuietHours

MIB, GIB = 1 << 20, 1 << 30
NIGHT = QuietHours.parse("22:00-07:00")


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512 * MIB), ("512M", 512 * MIB), ("4G", 4 * GIB), ("4g", 4 * GIB), (" 1 ", MIB)],
)
def test_a_size_is_mebibytes_unless_it_says_more(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        size = Size().convert(text, None, None)
    except click.BadParameter:
        return
    assert size >= MIB


@pytest.mark.parametrize("text", ["", "0", "0G", "-1", "1.5G", "4GB", "4 G", "9" * 13])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no size"):
        Size().convert(text, None, None)


def test_hours_are_read_or_refused_with_an_example() -> None:
    assert Hours().convert("22:00-07:00", None, None) == NIGHT
    assert Hours().convert(NIGHT, None, None) == NIGHT
    with pytest.raises(click.BadParameter, match=r"no hours of a day: '7'; for instance 22:00"):
        Hours().convert("7", None, None)


def test_kv_memory_is_a_half_of_little_unless_it_was_chosen() -> None:
    assert kv_bytes_of(512, Care(), is_chosen=False) == 512 * MIB
    assert kv_bytes_of(512, Care(max_memory=600 * MIB), is_chosen=False) == 300 * MIB
    assert kv_bytes_of(512, Care(max_memory=4 * GIB), is_chosen=False) == 512 * MIB
    assert kv_bytes_of(500, Care(max_memory=600 * MIB), is_chosen=True) == 500 * MIB
    with pytest.raises(UsageError, match="leaves nothing of --max-memory 600"):
        kv_bytes_of(600, Care(max_memory=600 * MIB), is_chosen=True)


def test_the_settings_have_all_of_it(tmp_path: Path) -> None:
    options = UpOptions(
        state=tmp_path,
        model=("none",),
        layers="auto",
        max_layers=None,
        listen="127.0.0.1",
        port=0,
        peer=(),
        name="kitchen",
        kv_memory=512,
        mdns=False,
        threads=1,
        max_memory=600 * MIB,
        max_vram=2 * GIB,
        when="idle",
        quiet_hours=(NIGHT,),
        batching="off",
        reuse="with:horses",
    )
    settings = settings_of(options)
    assert settings.config.inference.reuse.word == "horses"
    assert settings.config.max_memory == 600 * MIB
    assert settings.config.kv_bytes == 300 * MIB
    assert settings.engine.max_vram == 2 * GIB
    assert settings.config.rest.when_idle
    assert settings.config.rest.quiet_hours == (NIGHT,)
    assert not settings.config.inference.batching
    assert settings.limits == (
        "memory 600 MiB",
        "GPU memory 2 GiB",
        "threads 1",
        "when idle",
        "quiet 22:00-07:00",
    )


def test_nothing_said_is_no_limit() -> None:
    assert limits_of(Care(), None) == ()
    assert limits_of(Care(nice=0), None) == ("nice 0",)
    assert rest_of(Care()).is_always


NICE = """
import os, subprocess, sys, threading
from p2pnode.interfaces.cli.care_options import give_way
stop = threading.Event()
threading.Thread(target=stop.wait).start()  # as BLAS has some before anybody says anything
give_way(7)
child = subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"], capture_output=True)
print([os.getpriority(os.PRIO_PROCESS, int(one)) for one in os.listdir("/proc/self/task")],
      int(child.stdout))
stop.set()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists threads as Linux does")
def test_every_thread_and_every_child_gives_way() -> None:
    run = subprocess.run([sys.executable, "-c", NICE], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[7, 7] 7"


def test_a_system_without_nice_values_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "setpriority")
    give_way(None)
    with pytest.raises(UsageError, match="this system has no nice value"):
        give_way(5)


def test_less_than_it_was_started_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpriority", lambda which, who: 10)
    with pytest.raises(UsageError, match="it was started with 10 already"):
        give_way(5)
