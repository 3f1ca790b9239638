"""Which options can be kept, and what they are called: one plain rule for all commands."""

import click
import pytest

from p2pnode.interfaces.cli.commands import COMMANDS, cli
from p2pnode.interfaces.config.kinds import default_of, refusal
from p2pnode.interfaces.config.settings import (
    KEEPS_NONE,
    SHARED,
    all_settings,
    settings_of,
    unknown_variables,
)

KNOWN = all_settings(cli)


def test_an_option_is_called_as_its_flag_without_the_dashes() -> None:
    up = KNOWN["up",]
    assert up["kv-memory"].variable == "P2PNODE_UP_KV_MEMORY"
    assert up["kv-memory"].option.envvar == "P2PNODE_UP_KV_MEMORY"
    assert KNOWN["generate",]["plan"].variable == "P2PNODE_GENERATE_PLAN"
    assert "mdns" in up
    assert not {"json", "with-parent", "help"} & set(up)
    assert "now" not in KNOWN["stop",]


def test_no_two_settings_have_one_variable_and_none_that_means_something_else() -> None:
    names = [setting.variable for settings in KNOWN.values() for setting in settings.values()]
    assert len(set(names)) == len(names)
    taken = {"HOME", "CACHE", "CONFIG", "DEBUG", "PURE", "COMPILE", "GGML_DIR"}
    assert not {f"P2PNODE_{name}" for name in taken} & set(names)


def test_what_stands_above_the_tables_is_of_more_than_one_command() -> None:
    for key in SHARED:
        assert sum(key in settings for settings in KNOWN.values()) > 1, key


def test_commands_without_settings_exist_and_the_others_have_some() -> None:
    assert set(COMMANDS) >= KEEPS_NONE
    assert {path[0] for path in KNOWN} == set(COMMANDS) - KEEPS_NONE


def test_every_default_is_of_the_kind_that_a_file_may_have() -> None:
    for settings in KNOWN.values():
        for setting in settings.values():
            default = default_of(setting.option)
            assert default is None or not refusal(setting, default), setting


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("port", [1, 0], [True, "1", 1.0, None, [1], {}, 1 << 70]),
        ("mdns", [True, False], [1, "yes", []]),
        ("layers", ["0:3"], [3, True, ["0:3"], 1.5]),
        ("peer", [[], ["a:1"]], ["a:1", [1], [["a"]], 5]),
        ("engine", ["numpy"], [1]),
    ],
)
def test_kinds_are_strict(key: str, good: list[object], bad: list[object]) -> None:
    setting = KNOWN["up",][key]
    assert not any(refusal(setting, value) for value in good)
    assert all(refusal(setting, value) for value in bad)
    temperature = KNOWN["generate",]["temperature"]
    assert not refusal(temperature, 1)
    assert not refusal(temperature, 0.5)
    assert refusal(temperature, True)


def test_a_variable_that_only_looks_like_a_setting_is_found() -> None:
    said = {"P2PNODE_UP_PROT": "1", "P2PNODE_HOME": "/x", "P2PNODE_UP_PORT": "2", "P2PNODE_X": "3"}
    assert [name for name, _ in unknown_variables(said, KNOWN)] == ["P2PNODE_UP_PROT"]


def test_groups_of_commands_have_tables_within_tables() -> None:
    @click.command()
    @click.option("--user-key", help="x")
    @click.option("--json", "as_json", is_flag=True)
    def install() -> None: ...

    group = click.Group("service", {"install": install})
    root = click.Group("root", {"service": group})
    known = all_settings(root)
    assert list(known) == [("service", "install")]
    setting = known["service", "install"]["user-key"]
    assert setting.variable == "P2PNODE_SERVICE_INSTALL_USER_KEY"
    assert setting.is_secret
    assert settings_of(("bench",), install) == {}
