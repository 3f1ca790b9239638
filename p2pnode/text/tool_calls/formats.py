"""Which way of writing calls a model was taught."""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from p2pnode.text.tool_calls import grammars
from p2pnode.text.tool_calls.source import Source, Steps


class ToolFormat(Enum):
    """A way of writing calls of tools; what each looks like is told in :mod:`.grammars`."""

    HERMES = "hermes"
    LLAMA = "llama"
    MISTRAL = "mistral"


GRAMMARS: Final[Mapping[ToolFormat, Callable[[Source], Steps[None]]]] = {
    ToolFormat.HERMES: grammars.hermes,
    ToolFormat.LLAMA: grammars.llama,
    ToolFormat.MISTRAL: grammars.mistral,
}

_MARKS: Final = {
    ToolFormat.HERMES: frozenset(grammars.HERMES),
    ToolFormat.LLAMA: frozenset(grammars.LLAMA),
    ToolFormat.MISTRAL: frozenset(grammars.MISTRAL),
}

# Others write <tool_call> around something that is no JSON: Qwen3-Coder, GLM 4.5.
_NO_JSON: Final = re.compile(r"<function=|<arg_key>")
_LLAMA: Final = re.compile(r"""\\?"parameters\\?":\s""")


def format_of(template: str) -> ToolFormat | None:
    """Return the way of writing calls that a chat template teaches; None if it is none of ours."""
    if "[TOOL_CALLS]" in template:
        return ToolFormat.MISTRAL
    if "<tool_call>" in template:
        return None if _NO_JSON.search(template) else ToolFormat.HERMES
    # Llama 3.2 was taught without the mark; its tools answer under a role that no other has.
    if "<|python_tag|>" in template or ("ipython" in template and _LLAMA.search(template)):
        return ToolFormat.LLAMA
    return None


def marks(kind: ToolFormat) -> frozenset[str]:
    """Return the spellings that a parser must see, also where they are control tokens."""
    return _MARKS[kind]
