"""How each family of models writes calls of tools, read by asking a :class:`.source.Source`.

What turns out not to be a call is text, whole and in its place; behind its mark the search goes on.
"""

import re
from typing import Final

from p2pnode.text.tool_calls.call_json import LONGEST_NAME, call_of, object_text
from p2pnode.text.tool_calls.pieces import ToolCall
from p2pnode.text.tool_calls.source import Source, Steps

HERMES: Final = ("<tool_call>", "</tool_call>")
LLAMA: Final = ("<|python_tag|>",)
MISTRAL: Final = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]")
_ID: Final = re.compile(r"[A-Za-z0-9_-]")
_LLAMA_ENDS: Final = ("<|eom_id|>", "<|eot_id|>")
_FIRST_KEYS: Final = tuple(
    f'"{key}"' for key in ("name", "type", "id", "function", "parameters", "arguments")
)


def hermes(source: Source) -> Steps[None]:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, any number, text anywhere.

    Hermes 2 Pro, Qwen 2.5 and 3, SmolLM3, Granite 4 and others; the closing mark may be missing.
    """
    opening, closing = HERMES
    while (yield from source.text_before(opening)):
        if call := (yield from _call(source, marked=True)):
            yield from source.called(call)
            yield from source.skip(closing)
        else:
            yield from source.no_call()


def llama(source: Source) -> Steps[None]:
    """``{"name": ..., "parameters": {...}}``, with ``;`` or white space between several.

    Llama 3.1 to 3.3. They begin the answer, or stand behind ``<|python_tag|>``. What else this mark
    leads in, such as Python, is text.
    """
    if (yield from _may_begin_with_call(source)):
        yield from _llama_calls(source, marked=False)
    while (yield from source.text_before(LLAMA[0])):
        if not (yield from _llama_calls(source, marked=True)):
            yield from source.no_call()


def mistral(source: Source) -> Steps[None]:
    """``[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]`` or ``[TOOL_CALLS]name[ARGS]{...}``.

    The list is that of tokenizers up to v7 (Mistral 7B v0.3, Nemo, Small 3.1), the other that of
    v11 and v13 (Small 3.2, Magistral, Devstral), where ``[CALL_ID]`` and an id may precede
    ``[ARGS]``, and each call has a mark of its own.
    """
    while (yield from source.text_before(MISTRAL[0])):
        yield from source.spaces()
        in_list = yield from source.follows("[")
        found = yield from (_mistral_list(source) if in_list else _mistral_call(source))
        if not found:
            yield from source.no_call()


def _call(source: Source, *, marked: bool) -> Steps[ToolCall | None]:
    if source.is_full:
        return None
    yield from source.spaces()
    written = yield from source.json_object()
    return None if written is None else call_of(written, marked=marked)


def _may_begin_with_call(source: Source) -> Steps[bool]:
    """Whether the answer's first key is one of a call: other JSON is shown as it comes."""
    yield from source.spaces()
    if found := (yield from source.follows("{")):
        yield from source.spaces()
        found = yield from source.follows(*_FIRST_KEYS)
    source.take_back()
    return found


def _llama_calls(source: Source, *, marked: bool) -> Steps[bool]:
    found = False
    while call := (yield from _call(source, marked=marked)):
        yield from source.called(call)
        found = True
        yield from source.spaces()
        yield from source.follows(";")
    if found or not marked:
        source.take_back()
    if found:
        yield from source.skip(*_LLAMA_ENDS)
    return found


def _mistral_list(source: Source) -> Steps[bool]:
    found = False
    while call := (yield from _call(source, marked=True)):
        yield from source.called(call)
        found = True
        yield from source.spaces()
        if (yield from source.follows("]")):
            source.settle()
            return True
        if not (yield from source.follows(",")):
            break
    if found:
        source.take_back()
    return found


def _mistral_call(source: Source) -> Steps[bool]:
    name = yield from source.run(_NAME, LONGEST_NAME)
    call = (yield from _mistral_arguments(source, name)) if name else None
    if call is None:
        return False
    yield from source.called(call)
    return True


def _mistral_arguments(source: Source, name: str) -> Steps[ToolCall | None]:
    _, arguments_mark, id_mark = MISTRAL
    if (yield from source.follows(id_mark)):
        yield from source.run(_ID, LONGEST_NAME)
    yield from source.follows(arguments_mark)
    yield from source.spaces()
    written = yield from source.json_object()
    arguments = None if written is None or source.is_full else object_text(written)
    return None if arguments is None else ToolCall(name, arguments)
