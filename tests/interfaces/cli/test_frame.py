"""``p2pnode frame``: vectors there and back, broken frames explained, bad input in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, strategies as st

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.frame_commands import MAX_ENTRY, MAX_INPUT, frame

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/vframe.json").read_text("utf-8"))["frames"]
BY_NAME = {entry["name"]: entry for entry in VECTORS}
PING = BY_NAME["sync-ping"]
PING_BYTES = bytes.fromhex(PING["frame"])
SEAL = ["--key", "11" * 32, "--salt", "22" * 12]


def run(*arguments: str, stdin: bytes | str = b"") -> Result:
    return CliRunner().invoke(frame, arguments, input=stdin)


def refused(*arguments: str, stdin: bytes | str = b"") -> UserError:
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, UserError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def facts(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("name", "note")}


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_every_vector_goes_there_and_back(entry: dict[str, Any]) -> None:
    for stdin in (entry["frame"], bytes.fromhex(entry["frame"])):
        decoded = run("decode", "--json", stdin=stdin)
        assert decoded.exit_code == 0
        assert facts(json.loads(decoded.stdout)) == facts(entry)
        assert run("encode", stdin=decoded.stdout).stdout == entry["frame"] + "\n"
    assert run("encode", "--raw", stdin=json.dumps(entry)).stdout_bytes.hex() == entry["frame"]


@pytest.mark.parametrize(
    "spelling",
    [
        PING["frame"].upper(),
        "0x" + PING["frame"],
        "\n " + PING["frame"][:7] + "\n" + PING["frame"][7:] + "\r\n",
        PING_BYTES.hex(" "),
    ],
)
def test_hex_is_seen_however_it_is_spelt(spelling: str) -> None:
    assert json.loads(run("decode", "--json", stdin=spelling).stdout)["frame"] == PING["frame"]
    assert run("decode", "--json", "--hex", stdin=spelling).exit_code == 0


def test_no_line_is_longer_than_a_person_reads() -> None:
    entry = next(one["frame"] for one in VECTORS if one["slices"] and not one["flags"])
    fields = json.loads(run("decode", "--json", "--fields", stdin=entry).stdout)["fields"]
    at = next(one["offset"] for one in fields if one["name"] == "slice[0].ndim")
    data = bytes.fromhex(entry)[:at] + b"\xff" * 1100
    result = run("decode", "--raw", stdin=data)
    assert result.exit_code == 1
    assert "4294967295 x 4294967295" in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 260
    told = run("decode", "--raw", "--json", stdin=data).stdout
    assert told.count("4294967295") >= 255


def test_a_person_gets_the_fields_and_what_a_sync_says(tmp_path: Path) -> None:
    path = tmp_path / "ping.bin"
    path.write_bytes(PING_BYTES)
    result = run("decode", str(path))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["OFFSET", "SIZE", "FIELD", "VALUE", "REMARK"]
    assert lines[2].split() == ["1", "1", "type", "SYNC"]
    assert f"{len(PING_BYTES)} bytes, well-formed: a Sync: ping" in lines
    assert '"method": "ping"' in result.stdout


def test_a_stranger_cannot_write_on_the_terminal() -> None:
    text = b'{"a": "\xc2\x9b2J\xe2\x80\xae"}'
    piece = {"dtype": 2, "shape": [len(text)], "payload": text.hex()}
    result = run(
        "decode", stdin=run("encode", stdin=json.dumps({**PING, "slices": [piece]})).stdout
    )
    assert "\\u009b2J\\u202e" in result.stdout
    assert result.stdout.isascii()


def test_no_output_carries_a_strangers_control_characters() -> None:
    nasty = "\x1b[2J\x07\x7f\x9b\u202e\u2028é"
    ask = {**BY_NAME["ask-embedding-context"]}
    text = nasty.encode()
    ask["slices"] = [*ask["slices"][:1], {"dtype": 2, "shape": [len(text)], "payload": text.hex()}]
    body = json.dumps({"method": nasty}, ensure_ascii=False).replace("\\u001b", "u").encode()
    sync = {**PING, "slices": [{"dtype": 2, "shape": [len(body)], "payload": body.hex()}]}
    for entry in (ask, sync):
        frame_hex = run("encode", stdin=json.dumps(entry)).stdout
        for options in ([], ["--json"], ["--json", "--fields"]):
            output = run("decode", *options, stdin=frame_hex).output
            assert all(letter.isprintable() or letter == "\n" for letter in output)
    assert "é" in run("decode", stdin=run("encode", stdin=json.dumps(ask)).stdout).stdout


def test_a_program_gets_the_fields_of_a_good_frame_too() -> None:
    body = json.loads(run("decode", "--json", "--fields", stdin=PING_BYTES).stdout)
    assert body["problem"] == ""
    assert body["message"]["says"]["method"] == "ping"
    assert sum(field["size"] for field in body["fields"][:-1]) == len(PING_BYTES)
    offsets = [field["offset"] for field in body["fields"][:-1]]
    assert offsets == sorted(offsets)
    assert "--json" in str(refused("decode", "--fields", stdin=PING_BYTES))


def test_a_well_formed_frame_that_is_no_message_says_why() -> None:
    entry = {**PING, "slices": [{"dtype": 2, "shape": [1], "payload": "5b"}]}
    encoded = run("encode", stdin=json.dumps(entry)).stdout
    result = run("decode", stdin=encoded)
    assert result.exit_code == 0
    assert "a reader of messages refuses it: not JSON" in result.stdout
    told = json.loads(run("decode", "--json", "--fields", stdin=encoded).stdout)
    assert told["message"]["problem"].startswith("not JSON")


def test_a_broken_frame_is_explained_and_fails() -> None:
    broken = PING_BYTES[:40] + b"!" + PING_BYTES[41:]
    result = run("decode", stdin=broken)
    assert result.exit_code == 1
    assert "refused: the CRC does not match" in result.stdout
    told = run("decode", "--json", stdin=broken)
    assert told.exit_code == 1
    body = json.loads(told.stdout)
    assert body["problem"] == "the CRC does not match"
    assert [field["name"] for field in body["fields"] if field["problem"]] == ["crc32", "frame"]


@given(st.binary(min_size=1, max_size=100))
def test_whatever_comes_in_is_explained_or_refused_in_one_line(data: bytes) -> None:
    for options in ([], ["--json"], ["--raw"], ["--hex"], SEAL):
        result = run("decode", *options, stdin=data)
        assert isinstance(result.exception, SystemExit | UserError | None)
        assert result.exit_code in (0, 1)


def test_a_sealed_frame_opens_with_its_key_alone() -> None:
    entry = {**BY_NAME["think-zeros-2048"], "flags": 3}
    sealed = run("encode", *SEAL, stdin=json.dumps(entry)).stdout
    assert "sealed" in str(refused("encode", stdin=json.dumps(entry)))
    closed = run("decode", stdin=sealed)
    assert closed.exit_code == 1
    assert "refused: a sealed frame, and no key" in closed.stdout
    opened = run("decode", *SEAL, stdin=sealed)
    assert opened.exit_code == 0
    assert "inflated slice[0].payload" in opened.stdout
    again = json.loads(run("decode", "--json", *SEAL, stdin=sealed).stdout)
    assert again["slices"] == entry["slices"]
    wrong = [*SEAL[:1], "33" * 32, *SEAL[2:]]
    assert "MAC does not match" in run("decode", *wrong, stdin=sealed).stdout


def test_an_entry_whose_own_frame_differs_is_noted() -> None:
    result = run("encode", stdin=json.dumps({**PING, "frame_seq": 7}))
    assert result.exit_code == 0
    assert "differs" in result.stderr
    assert "differs" not in run("encode", stdin=json.dumps(PING)).stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["decode"], b"", "empty"),
        (["decode"], b"0" * (MAX_INPUT + 1), "longer than"),
        (["decode"], "010", "one is missing"),
        (["decode", "--hex"], PING_BYTES, "not hex"),
        (["decode", "--key", "00"], PING_BYTES, "both a key and a salt"),
        (["decode", "--key", "zz", "--salt", "00" * 12], PING_BYTES, "--key wants 32 bytes"),
        (["decode", "--key", "00" * 32, "--salt", "00"], PING_BYTES, "--salt wants 12 bytes"),
        (["encode"], b"", "empty"),
        (["encode"], b" " * (MAX_ENTRY + 1), "longer than"),
        (["encode"], PING["frame"], "not JSON"),
        (["encode"], b"\xff\xfe{", "not JSON"),
        (["encode"], "[" * 100_000, "not JSON"),
        (["encode"], "[]", "not an object"),
        (["encode"], json.dumps({"frames": VECTORS[:1]}), "it lacks type"),
        (["encode"], json.dumps({**PING, "type": 9}), "no frame"),
        (["encode"], json.dumps({**PING, "frame_seq": float("nan")}), "no frame"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], stdin: bytes | str, said: str
) -> None:
    assert said in str(refused(*arguments, stdin=stdin))


@pytest.mark.parametrize("arguments", [[], ["decode"], ["encode"]])
def test_help_shows_an_example(arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "p2pnode frame" in result.stdout.partition("Example")[2]


def test_the_command_itself_fails_without_a_traceback(tmp_path: Path) -> None:
    def command(*arguments: str, stdin: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "p2pnode", "frame", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    decoded = command("decode", "--json", stdin=PING["frame"])
    assert (decoded.returncode, decoded.stderr) == (0, "")
    assert command("encode", stdin=decoded.stdout).stdout == PING["frame"] + "\n"
    assert command("decode", stdin=PING["frame"][:-2]).returncode == 1
    failed = command("encode", stdin="{")
    assert failed.returncode == 1
    assert failed.stderr.startswith("p2pnode: not JSON: ")
    assert len(failed.stderr.splitlines()) == 2
