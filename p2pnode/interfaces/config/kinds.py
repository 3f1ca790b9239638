"""What kind of value a setting has in a file, where values have types that flags do not."""

import json

import click

from p2pnode.interfaces.config.settings import OneOrSeveral, Setting

_MOST_BITS = 64  # of a whole number, as TOML promises them
_SHOWN = 60  # letters of a value in a complaint


def refusal(setting: Setting, value: object) -> str:
    """Say what kind of value a setting has, where this is none; nothing where it is one."""
    option = setting.option
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return "is a number that is too large"
    if not option.multiple:
        words = _kind(option)
        return "" if _is_one(option, value) else f"is {words}, not {shown(value)}"
    several = as_several(setting, value)
    if isinstance(several, list) and all(_is_one(option, one) for one in several):
        return ""
    return f'is a list, such as ["{option.metavar or "a"}"], not {shown(value)}'


def as_several(setting: Setting, value: object) -> object:
    """Return a value as a list where one alone stands for a list of one."""
    is_short = isinstance(setting.option, OneOrSeveral) and isinstance(value, str)
    return [value] if is_short else value


def kind_of(option: click.Option) -> str:
    """Say what an option takes, with its bounds where it has any."""
    if isinstance(option.type, click.Choice):
        words = f"one of {', '.join(map(str, option.type.choices))}"
    elif isinstance(option.type, click.IntRange | click.FloatRange):
        words = f"{_kind(option)}, {option.type._describe_range()}"  # noqa: SLF001 -- as click words it
    else:
        words = option.metavar or _kind(option)
    return f"a list of {words}" if option.multiple else words


def shown(value: object) -> str:
    """Return a value as TOML has it, or nearly, cut to a line."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number too long for Python, or a very deep table
        return "that"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kind(option: click.Option) -> str:
    if option.is_flag:
        return "true or false"
    if isinstance(option.type, click.types.IntParamType):
        return "a whole number"
    if isinstance(option.type, click.types.FloatParamType):
        return "a number"
    return "a text in quotes"


def _is_one(option: click.Option, value: object) -> bool:
    if isinstance(value, bool) or option.is_flag:
        return isinstance(value, bool) and option.is_flag
    if isinstance(option.type, click.types.IntParamType):
        return isinstance(value, int)
    if isinstance(option.type, click.types.FloatParamType):
        return isinstance(value, int | float)
    return isinstance(value, str)


def default_of(option: click.Option) -> object:
    """Return what holds where nothing is said, as TOML has it; None where that is nothing fixed."""
    context = click.Context(click.Command("any", params=[option]))
    default = option.get_default(context)
    if isinstance(default, bool | int | float | str):
        return default
    if isinstance(default, list | tuple):
        return list(default)
    if option.is_flag:
        return False
    return [] if option.multiple else None


def as_toml(value: object) -> str:
    """Write a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_toml(one) for one in value)}]"
    if isinstance(value, int | float):
        return str(value)
    # A text of JSON is one of TOML, but for one letter that JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
