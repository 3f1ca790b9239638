"""``p2pnode frame``: V-Frames taken apart for people, and turned from and into JSON."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any, TypeVar

import click

from p2pnode.errors import RemoteProtocolError, UsageError, UserError
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.node_options import json_option
from p2pnode.interfaces.cli.output import note, say, say_json, table
from p2pnode.interfaces.cli.values import HomeFile
from p2pnode.phrases import plural
from p2pnode.terminal import to_json
from p2pnode.wire.frame_json import Field, explain_frame, frame_to_json, json_to_frame
from p2pnode.wire.meaning import Meaning, frame_meaning
from p2pnode.wire.seal import KEY_SIZE, SALT_SIZE, FrameOpener, FrameSealer
from p2pnode.wire.vframe import MAX_FRAME, Flags, decode_frame_untrusted

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

MAX_INPUT = 4 * MAX_FRAME
"""Bytes read of a frame: in hex it takes two a byte, and a third for the space between."""

MAX_ENTRY = 4 * 1024 * 1024
"""Bytes read of a JSON entry: a compressed frame may hold a megabyte, which is two in hex."""

_file = click.argument("file", type=HomeFile("rb"), default="-")


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode frame decode captured.bin")
def frame() -> None:
    """Take V-Frames apart, and put them together."""


def _seal_options(command: CommandT) -> CommandT:
    """Add the options of a sealed session to a command."""
    salt = click.option(
        "--salt",
        metavar="HEX",
        envvar="P2PNODE_FRAME_SALT",
        help=f"Its salt, {SALT_SIZE} bytes.  [env: P2PNODE_FRAME_SALT]",
    )
    key = click.option(
        "--key",
        metavar="HEX",
        envvar="P2PNODE_FRAME_KEY",
        help=f"Key of the session that seals it, {KEY_SIZE} bytes.  [env: P2PNODE_FRAME_KEY]",
    )
    return key(salt(command))


@frame.command(
    epilog="Examples:\n\n"
    "  p2pnode frame decode captured.bin\n\n"
    "  echo 01030000... | p2pnode frame decode --json"
)
@_file
@click.option("--hex", "form", flag_value="hex", help="The input is hex digits.")
@click.option("--raw", "form", flag_value="raw", help="The input is the frame's own bytes.")
@_seal_options
@json_option
@click.option("--fields", "by_field", is_flag=True, help="With --json: every field, always.")
@click.pass_context
def decode(
    ctx: click.Context,
    file: IO[bytes],
    form: str | None,
    key: str | None,
    salt: str | None,
    as_json: bool,
    by_field: bool,
) -> None:
    """Explain one frame, field by field, and say what is wrong with it.

    FILE, or standard input, holds the frame's bytes, or its hex digits. Which of the two is seen
    from the input: where it is hex digits, white space and perhaps a leading 0x, and nothing
    else, it is read as hex, else as bytes. A frame begins with byte 1, which is no hex digit.

    With --json a good frame is printed in the form of the test vectors, which `frame encode` reads
    again; a bad one, and with --fields any, as its fields (name, offset, size, value, problem,
    meaning), the problem a reader would name, and what the message says.

    Exits with status 1 when a reader would refuse the frame.
    """
    if by_field and not as_json:
        raise UsageError("--fields goes with --json", hint="without both, fields are a table")
    secret = _secret(key, salt)
    data = _frame_bytes(_read(file, MAX_INPUT), form)
    opener = FrameOpener(*secret) if secret is not None and _is_sealed(data) else None
    fields = explain_frame(data, opener=opener)
    problem, meaning = _checked(data, opener)
    if problem and form is None and data.isascii() and data[:1].isalnum():
        note("this looks like text, yet is not hex digits alone: it was read as a frame's bytes")
    if not as_json:
        _explain(data, fields, problem, meaning)
    elif problem or by_field:
        told = None if meaning is None else asdict(meaning)
        listed = [asdict(field) for field in fields]
        say_json({"fields": listed, "problem": problem, "message": told})
    else:
        say_json(frame_to_json(data, opener=opener))
    if problem:
        ctx.exit(1)


@frame.command(
    epilog="Examples:\n\n"
    "  p2pnode frame encode entry.json\n\n"
    "  p2pnode frame decode captured.bin --json | p2pnode frame encode --raw > again.bin"
)
@_file
@click.option("--raw", is_flag=True, help="Write the frame's bytes instead of hex digits.")
@_seal_options
def encode(file: IO[bytes], raw: bool, key: str | None, salt: str | None) -> None:
    """Write the frame that one JSON entry describes, as hex digits.

    The entry, in FILE or on standard input, has the form that `p2pnode frame decode --json`
    prints; its `frame`, if it has one, is not looked at.
    """
    secret = _secret(key, salt)
    entry = _entry(_read(file, MAX_ENTRY))
    data = json_to_frame(entry, sealer=None if secret is None else FrameSealer(*secret))
    if entry.get("frame", data.hex()) != data.hex():
        note("the entry's own `frame` differs from what its fields say, which is written")
    if raw:
        click.echo(data, nl=False)
    else:
        say(data.hex())


# Input


def _read(file: IO[bytes], limit: int) -> bytes:
    """Read all of a file.

    Raises:
        UserError: It is empty or too long.
    """
    try:
        data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read the input: {error.strerror or error}") from error
    if not data:
        raise UserError("the input is empty", hint="name a file, or pipe the frame in")
    if len(data) > limit:
        raise UserError(
            f"the input is longer than {limit} bytes", hint=f"a frame has at most {MAX_FRAME}"
        )
    return data


def _frame_bytes(data: bytes, form: str | None) -> bytes:
    """Return the frame that the input spells.

    Raises:
        UserError: It is to be hex, and is none.
    """
    if form == "raw" or (form is None and not _HEX.fullmatch(data)):
        return data
    digits = b"".join(data.split())
    digits = digits[2:] if digits[:2] in (b"0x", b"0X") else digits
    if not _HEX.fullmatch(data):
        raise UserError("this is not hex", hint="hex digits and white space, or --raw for bytes")
    if len(digits) % 2 or not digits:
        raise UserError(f"{plural(len(digits), 'hex digit')}: two make a byte, so one is missing")
    return bytes.fromhex(digits.decode("ascii"))


def _entry(data: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        UserError: It is none.
    """
    hint = "give one object, as `p2pnode frame decode --json` prints it"
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", hint=hint) from error
    if not isinstance(entry, dict):
        raise UserError("JSON, but not an object", hint=hint)
    missing = [key for key in _REQUIRED if key not in entry]
    if missing:
        raise UserError(f"this entry is no frame: it lacks {', '.join(missing)}", hint=hint)
    return entry


def _secret(key: str | None, salt: str | None) -> tuple[bytes, bytes] | None:
    """Return the key and the salt of a sealed session, or None.

    Raises:
        UserError: One is missing or malformed.
    """
    if key is None and salt is None:
        return None
    if key is None or salt is None:
        raise UsageError("a sealed session has both a key and a salt", hint="give --key and --salt")
    return _hex_of("--key", key, KEY_SIZE), _hex_of("--salt", salt, SALT_SIZE)


def _hex_of(option: str, text: str, size: int) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != size:
        raise UsageError(f"{option} wants {size} bytes, as {2 * size} hex digits")
    return data


# Output


def _checked(data: bytes, opener: FrameOpener | None) -> tuple[str, Meaning | None]:
    """Return what a reader refuses the frame for, or an empty string and what it says."""
    try:
        return "", frame_meaning(decode_frame_untrusted(data, opener=opener))
    except RemoteProtocolError as error:
        return str(error), None


def _explain(data: bytes, fields: Sequence[Field], problem: str, meaning: Meaning | None) -> None:
    *parts, verdict = fields
    rows = [
        (str(part.offset), str(part.size), part.name, _worded(part.value), _remark(part))
        for part in parts
    ]
    headings = ("OFFSET", "SIZE", "FIELD", "VALUE", "REMARK")
    width = 5 if any(row[4] for row in rows) else 4
    say(table(headings[:width], [row[:width] for row in rows], right="rr"))
    if problem:
        say(f"\n{plural(len(data), 'byte')}, refused: {_cut(problem)}")
        if verdict.value == "sealed":
            note("give --key and --salt of its session to open it")
    if meaning is not None:
        say(f"\n{plural(len(data), 'byte')}, well-formed: {_visible(meaning.words)}")
        _say_content(meaning)


def _say_content(meaning: Meaning) -> None:
    """Show the JSON or the text in a message: a stranger may have written it."""
    if meaning.problem:
        say(f"but a reader of messages refuses it: {_visible(meaning.problem)}")
    if meaning.says is not None:
        text = to_json(meaning.says, indent=2)
        say("\n".join(_visible(line) for line in text.split("\n")))


def _remark(part: Field) -> str:
    return _cut("; ".join(words for words in (part.problem, part.meaning) if words))


def _cut(text: str) -> str:
    """Return ``text`` for a line of a table: a broken shape may have 255 dims."""
    return _visible(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def _visible(text: str) -> str:
    """Return ``text`` with escapes for whatever could steer a terminal or hide from the eye."""
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1].replace("\x7f", "\\u007f")
        for letter in text
    )


def _worded(value: object) -> str:
    if isinstance(value, tuple):
        return _cut(" x ".join(map(str, value))) or "a scalar"
    return "" if value is None else _cut(str(value))


def _is_sealed(data: bytes) -> bool:
    return len(data) > 2 and bool(data[2] & Flags.XCHACHA)


_LONGEST = 100  # letters of a value; --json has all of it
_HEX = re.compile(rb"\s*(?:0[xX])?[0-9a-fA-F\s]*")
_REQUIRED = ("type", "stream_id", "frame_seq", "space_hash32", "slices")
