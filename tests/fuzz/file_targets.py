"""Files: models from anywhere, and what lies in a node's own directory."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from p2pnode.engine.gguf import read_model_info
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue
from p2pnode.engine.hash_tree import HashTree
from p2pnode.errors import ConfigError, ModelError, UserError
from p2pnode.interfaces.cli.commands import COMMANDS, cli
from p2pnode.interfaces.config.config_file import Choice, ConfigFile
from p2pnode.interfaces.config.report import in_words, rows
from p2pnode.interfaces.config.settings import Setting, all_settings
from p2pnode.interfaces.config.template import template
from p2pnode.node.advert import Advert, AdvertOffer
from p2pnode.node.identity import StateDirectory
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.text.tokenizer import Tokenizer
from tests.fuzz.target import MIB, Target

_WEIGHTS = 64 * 1024
"""Zero bytes behind every header tried: as much as its tensors take."""


def gguf(data: bytes) -> None:
    """A header, all its lists, and what the model says of itself in an ad."""
    with _file(data + bytes(_WEIGHTS)) as path:
        with GgufFile(path) as file:
            for tensor in file.tensors.values():
                assert tensor.offset + tensor.size <= len(data) + _WEIGHTS
            for key, value in file.metadata.items():
                if isinstance(value, ArrayValue):
                    _ignoring_type(file.texts, key)
                    _ignoring_type(file.integers, key)
        info = read_model_info(path, HashTree({}, bytes(32)))
        advert = Advert("n", "cpu", 1 << 30)
        advert.add(AdvertOffer(info, served=range(info.n_layers)))
        advert.encode()


def tokenizer(data: bytes) -> None:
    with _file(data + bytes(_WEIGHTS)) as path:
        words = Tokenizer.from_model(path)
        assert isinstance(words.decode(words.encode("hello, w\u00f6rld")), str)
        everything = "".join(words.vocabulary.tokens)
        assert not any(
            words.vocabulary.kinds[token] in (2, 3) for token in words.encode(everything)
        )


def state_files(data: bytes) -> None:
    """Every file of the state directory, whatever has become of it."""
    with tempfile.TemporaryDirectory() as folder:
        state = StateDirectory(Path(folder))
        readers: tuple[tuple[str, Callable[[], object]], ...] = (
            ("identity.key", state.identity_seed),
            ("swarm.secret", state.swarm_secret),
            ("peers.json", state.remembered_peers),
            ("boot-epoch", lambda: state.next_boot_epoch(0.0)),
        )
        name, read = readers[data[0] % len(readers) if data else 0]
        path = Path(folder, name)
        path.write_bytes(data[1:])
        path.chmod(0o600)
        read()


def settings_file(data: bytes) -> None:
    """What a person keeps: each complaint names a line that is there, each value can be shown."""
    with _file(data) as path:
        file = ConfigFile.read(Choice(path, is_named=True))
        known = _settings()
        complaints = [*file.problems_of_names(COMMANDS), *file.problems_of_groups(known)]
        for words, settings in known.items():
            said = file.read_table(words, settings)
            complaints += [one for one in said if isinstance(one, ConfigError)]
        for complaint in complaints:
            line = int(str(complaint).removeprefix(f"{path}:").split(":")[0])
            assert 1 <= line <= data.count(b"\n") + 1
        for row in rows(file, known, {}):
            in_words(row)


@lru_cache(maxsize=1)
def _settings() -> dict[tuple[str, ...], dict[str, Setting]]:
    return all_settings(cli)


def _ignoring_type(read: Callable[[str], object], key: str) -> None:
    with suppress(ModelError):
        read(key)


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        path.write_bytes(data)
        yield path


# Seeds


@lru_cache(maxsize=1)
def _headers() -> tuple[bytes, ...]:
    """Return the headers of tiny models, without their weights."""
    found = []
    for tensor_type in ("Q8_0", "F16"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tiny.gguf")
            write_tiny_gguf(path, tensor_type=tensor_type, n_layers=1, d_model=32, tied=True)
            with GgufFile(path) as file:
                start = min(tensor.offset for tensor in file.tensors.values())
            found.append(path.read_bytes()[:start])
    return tuple(found)


def _state_seeds() -> Iterator[bytes]:
    peer = {"node_id": bytes(range(32)).hex(), "addresses": [["192.0.2.1", 4747]]}
    yield b"\0" + bytes(32).hex().encode() + b"\n"
    yield b"\1" + bytes(32).hex().encode()
    yield b"\2" + json.dumps([peer]).encode()
    yield b"\3" + b"1700000000\n"


def _settings_seeds() -> Iterator[bytes]:
    yield re.sub(r"^#(?=\w)", "", template(_settings()), flags=re.MULTILINE).encode()
    yield b'model = "a"\n[up]\nport = 1\n"kv-memory" = 0x10\npeer = ["a:1", """b:2"""]\n'
    yield b"up.mdns = true\nup . 'name' = '''\n[up]\n'''\n[generate]\ntemperature = 1e-1 # no\n"
    yield b"[[up]]\n[up.port]\n[bench]\n[nosuch]\nstate = 1979-05-27T07:32:00Z\n"


TARGETS = (
    Target("gguf", gguf, _headers, refusals=(ModelError,), max_len=16_384, memory=2 * MIB),
    Target(
        "tokenizer", tokenizer, _headers, refusals=(ModelError,), max_len=16_384, memory=4 * MIB
    ),
    Target(
        "settings-file",
        settings_file,
        _settings_seeds,
        refusals=(UserError,),
        max_len=16_384,
        memory=4 * MIB,
        words=(b"[up]", b"\n", b'"""', b"'''", b" = ", b"up.port", b"[[", b"]]", b"{", b"}"),
    ),
    Target("state-files", state_files, _state_seeds, refusals=(UserError,), memory=3 * MIB),
)
