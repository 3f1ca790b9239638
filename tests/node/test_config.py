"""Settings that contradict each other, within a layer or between two, are refused by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from p2pnode.errors import ConfigError
from p2pnode.membership.config import wan as membership_wan
from p2pnode.node.config import (
    DialerConfig,
    HoldingsConfig,
    NodeConfig,
    OutboxConfig,
    SpeedConfig,
)
from p2pnode.transport.config import TransportConfig


def test_the_presets_fit_together() -> None:
    assert NodeConfig("here").transport == TransportConfig.lan()
    wan = NodeConfig.wan("here")
    assert (wan.transport, wan.membership) == (TransportConfig.wan(), membership_wan())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transport": TransportConfig.wan()}, "outcome_seconds is more than dial_timeout"),
        (
            {"outbox": OutboxConfig(waiting_seconds=5.0)},
            "waiting_seconds is more than dial_timeout",
        ),
        ({"membership": membership_wan()}, "confirm is at least two gossip rounds"),
        ({"dialer": DialerConfig(redial=0.1)}, "redial is at least three round trips"),
        ({"dialer": DialerConfig(backoff_most=301)}, "twice key_shared_told_every and backoff"),
        ({"key_shared_shown": 599}, "key_shared_shown"),
        ({"farewell": 0.01}, "farewell is at least a round trip"),
        ({"drain": -1.0}, "drain"),
        ({"kv_bytes": -1}, "kv_bytes"),
        ({"announce_every": 0.0}, "announce_every"),
    ],
)
def test_what_two_layers_say_of_each_other_holds(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(NodeConfig("here"), **changes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DialerConfig(redial=0), "redial"),
        (lambda: DialerConfig(backoff_met=1), "backoff_met"),
        (lambda: DialerConfig(rate=0), "rate"),
        (lambda: DialerConfig(burst=0), "counts"),
        (lambda: OutboxConfig(waiting_bytes=65535), "hold a frame"),
        (lambda: OutboxConfig(waiting_total_bytes=1 << 20), "waiting_total_bytes"),
        (lambda: OutboxConfig(most_waiting=0), "most_waiting"),
        (lambda: HoldingsConfig(settle=-1), "settle"),
        (lambda: HoldingsConfig(confirm=0), "confirm"),
        (lambda: HoldingsConfig(max_layers=0), "max_layers"),
        (lambda: SpeedConfig(idle=61), "idle"),
    ],
)
def test_a_layer_does_not_contradict_itself(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
