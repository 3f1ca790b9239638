"""What people and programs say to a model: no word of it becomes a control token."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from warnings import catch_warnings

from p2pnode.errors import UserError
from p2pnode.text.tokenizer import Tokenizer, byte_alphabet
from tests.fuzz.target import MIB, Script, Target, blob
from tests.text.template_shapes import Composer, forged

_CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<|user|>")

_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "model")

# What templates do to text, in one.
_TEMPLATE = """{{ bos_token }}{% for t in tools or [] %}{{ t | tojson(indent=1) }}{% endfor %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% set c = m.content | trim %}
{{- c.split('</think>')[-1].lstrip('\\n') ~ ('%s|%s' % (c, m.name)) }}
{{- '[INST] {} [/INST]'.format(c | replace('a', m.name)) | indent(2) }}{{ c | title }}{{ m }}
{{- [c, '<|im_end|>', m.name] | join(m.name) }}{{ '<|' + m.role + '|>' }}{% endfor %}</s>"""


@lru_cache(maxsize=1)
def _tokenizers() -> tuple[Tokenizer, ...]:
    """Return one of each kind; in both, control tokens come last."""
    ends: dict[str, Any] = {"template": _TEMPLATE, "bos": 256, "eos": 257}
    letters = 256 * [1] + [3] * len(_CONTROL)
    tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), *_CONTROL, "</", "s>", "\u2581<", "[I"]
    return (
        Tokenizer(
            tokens=[*byte_alphabet(), *_CONTROL], merges=[], kinds=letters, pre="llama-bpe", **ends
        ),
        Tokenizer(
            tokens=tokens,
            merges=[],
            kinds=[6] * 256 + letters[256:] + [1] * 4,
            pre="",
            kind="llama",
            scores=[0.0] * len(tokens),
            space_prefix=True,
            **ends,
        ),
    )


def _control(words: list[str], tokenizer: Tokenizer) -> list[int]:
    """Return the control tokens of a conversation in which these words are said."""
    messages = [
        {"role": role, "content": content, "name": name}
        for role, content, name in zip(words[::3], words[1::3], words[2::3], strict=False)
    ]
    text = tokenizer.chat(messages, tools=[{words[0]: words[1]}])
    control = range(256, 256 + len(_CONTROL))
    return [token for token in tokenizer.encode(text) if token in control]


def conversation(data: bytes) -> None:
    script = Script(data)
    words: list[str] = []
    while script and len(words) < 9:
        words.append(script.blob().decode("utf-8", "surrogateescape"))
    words += [""] * (max(3, -(-len(words) // 3) * 3) - len(words))
    harmless = ["x"] * len(words)
    # A role that templates know is a choice, and may make a token of its own.
    harmless[::3] = [role if role in _ROLES else "x" for role in words[::3]]
    for tokenizer in _tokenizers():
        assert _control(words, tokenizer) == _control(harmless, tokenizer)


def _seeds() -> Iterator[bytes]:
    yield b"".join(map(blob, (b"other", b"<|im_end|>", b"a")))
    yield b"".join(
        map(blob, (b"im_end", b"</think><|im_start|>\n", b"<|", b"us", b"er|>", b"[INST]"))
    )
    yield b"".join(map(blob, (b"\xed\xa0\x80", b'{"a": "\\u001b"}', b"%s{}")))


def template(data: bytes) -> None:
    script = Script(data)
    choices = Script(script.blob())
    words = [script.blob().decode("utf-8", "surrogateescape") for _ in range(4)]
    made = Composer(lambda several: several[choices.byte() % len(several)]).template()
    with catch_warnings(action="ignore"):  # Python's, of what such a template compiles to
        assert not forged(made, words), made


def _template_seeds() -> Iterator[bytes]:
    words = b"".join(map(blob, (b">", b"<|im_end|>", b"a>", b"%s{0}>")))
    for number in range(24):
        yield blob(bytes((number * step) % 251 for step in range(1, 60))) + words


TARGETS = (
    Target(
        "template",
        template,
        _template_seeds,
        refusals=(UserError,),
        max_len=400,
        memory=4 * MIB,
        words=(b">", b"{0}", b"%s", b"<|im_end|>"),
    ),
    Target(
        "conversation",
        conversation,
        _seeds,
        refusals=(UserError,),
        max_len=600,
        memory=4 * MIB,
        words=(*(one.encode() for one in _CONTROL), b"</think>", b"%s", b"{}", b"|>", b"<|"),
    ),
)
