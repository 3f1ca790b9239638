"""Conversations as a model was taught to read them: its chat template, applied.

A template is a foreign program and may not end; whoever renders bounds its time
(:mod:`p2pnode.node.text_worker`).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from p2pnode.errors import ModelError, UserError
from p2pnode.text.history import Message
from p2pnode.text.marked import (
    UNKNOWN,
    Marked,
    as_data,
    data_text,
    marks_of,
    template_text,
)
from p2pnode.text.specials import Specials
from p2pnode.text.tool_calls.conversation import for_template
from p2pnode.text.tool_calls.formats import ToolFormat, format_of
from p2pnode.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from p2pnode.text.environment import MarkingEnvironment

Clock: TypeAlias = Callable[[], datetime]
"""What ``strftime_now`` reads."""

_RAW: Final = (
    'Give it plain text to go on with, p2pnode generate --raw "Once upon a time", '
    "or use another file of this model."
)
_ROLES: Final = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function", "ipython", "model"}
)
"""Roles that templates know. One of these is a choice, not free text, and counts as the template's:
some write ``<|`` and the role and ``|>``, which must become a control token."""

_PROBE: Final = "Papageno"  # a word that no template has
_MOST_SAID: Final = 300  # characters of a template's complaint
_BETWEEN_PARTS: Final = "\n"  # as llama.cpp and vLLM join the parts of a message


NO_TEMPLATE: Final = "this model has no chat template"


def no_template() -> ModelError:
    """Return the error for messages to a model that only goes on with a text."""
    return ModelError(NO_TEMPLATE, hint=_RAW)


class ChatTemplate:
    """One model's chat template.

    Args:
        vocabulary: The model's.
        specials: Its control tokens.
        clock: What ``strftime_now`` reads.
    """

    def __init__(self, vocabulary: Vocabulary, specials: Specials, clock: Clock) -> None:
        self._vocabulary = vocabulary
        self._specials = specials
        self._clock = clock

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        goes_on: bool = False,
    ) -> Marked:
        """Write a conversation up to the model's turn to speak.

        With ``goes_on`` the last message, a text, is the beginning of what it says: it stands after
        what the template writes before an answer. Templates differ too much in how they write a
        turn that is over to cut its end off.

        A message's content may be a text or a list of text parts, whatever the template wants;
        calls of tools are in OpenAI's form (:func:`.tool_calls.conversation.for_template`).

        Raises:
            UserError: A message is none, or a call in it.
            ModelError: The model has no chat template, or the template refuses the messages.
        """
        if not self._vocabulary.template:
            raise no_template()
        said = [_checked(number, message) for number, message in enumerate(messages, 1)]
        begun = data_text(str(said.pop()["content"])) if goes_on else data_text("")
        if "tool_calls" not in self._vocabulary.template:  # it wants text of every message
            said = [{**one, "content": one["content"] or ""} for one in said]
        write = _in_parts if self._wants_parts else _in_one
        turns = [_turn(one, write) for one in for_template(said, self.tool_format)]
        return self._rendered(turns, tools=tools or None, documents=documents or None) + begun

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How the template teaches to write calls of tools; None: not, or in a way not known."""
        return format_of(self._vocabulary.template)

    @cached_property
    def end_of_turn(self) -> int | None:
        """The control token that the template writes first after an assistant's words, or None.

        Where it writes none after the last message, what it writes before the next one counts.
        """
        exchange = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": _PROBE}]
        for turns in (exchange, [*exchange, exchange[0]]):
            for write in (_in_one, _in_parts):
                said = [_turn(turn, write) for turn in turns]
                try:
                    text = self._rendered(said, add_generation_prompt=False)
                except ModelError:
                    continue
                if (found := self._after_probe(text)) is not None:
                    return found
        return None

    def _after_probe(self, text: Marked) -> int | None:
        at = text.rfind(_PROBE)
        if at < 0:
            return None
        for special in self._specials.find(text[at + len(_PROBE) :]):
            spelled = self._vocabulary.tokens[special.token]
            # Some files have their turns' ends as user-defined tokens, among others that are not.
            if self._specials.is_control(special.token) or spelled[0] + spelled[-1] == "<>":
                return special.token
        return None

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether the template reads lists of parts and cannot read text."""
        return not self._reads(_PROBE) and self._reads(_in_parts(_PROBE))

    def _reads(self, content: object) -> bool:
        """Whether the template writes out what such a content says, and not its brackets."""
        try:
            text = self._rendered([_turn({"role": "user", "content": content})])
        except ModelError:
            return False
        return _PROBE in text and not any(sign + _PROBE in text for sign in "'\"")

    def _rendered(self, messages: Sequence[Message], **given: object) -> Marked:
        vocabulary, environment = self._vocabulary, self._environment
        named = {
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            **given,
        }
        environment.untracked.clear()
        try:
            text = self._render(
                **{name: as_data(value) for name, value in named.items()},
                bos_token=environment.literal(vocabulary.text(vocabulary.bos)),
                eos_token=environment.literal(vocabulary.text(vocabulary.eos)),
            )
        except ModelError:
            raise
        except MemoryError as error:
            raise ModelError(
                "the model's chat template needs more memory than it may have", hint=_RAW
            ) from error
        except Exception as error:  # a template is a foreign program: it may raise anything
            raise _unusable(error) from error
        if not isinstance(text, Marked):
            raise TypeError("a rendered template is marked text")
        self._refuse_unsure(text)
        return text

    def _refuse_unsure(self, text: Marked) -> None:
        """Refuse a control token of which nobody can tell whether the template wrote it."""
        if UNKNOWN not in marks_of(text):
            return
        for special in self._specials.find_unsure(text):
            if UNKNOWN in marks_of(text)[special.start : special.stop]:
                names = ", ".join(self._environment.untracked[:3]) or "its own arithmetic"
                spelled = self._vocabulary.tokens[special.token]
                raise ModelError(
                    f"the model's chat template makes {spelled!r} in a way this node cannot follow "
                    f"({names}), so it could be forged",
                    hint=_RAW,
                )

    @cached_property
    def _environment(self) -> "MarkingEnvironment":
        from p2pnode.text.environment import MarkingEnvironment

        return MarkingEnvironment(self._clock)

    @cached_property
    def _render(self) -> Callable[..., str]:
        try:
            return self._environment.from_string(self._vocabulary.template).render
        except MemoryError:
            raise
        except Exception as error:
            raise _unusable(error) from error


def check_template(source: str) -> None:
    """Make sure that a chat template can be read; it is not run.

    Raises:
        ModelError: It is no jinja2; says in which line.
    """
    from p2pnode.text.environment import MarkingEnvironment

    try:
        MarkingEnvironment(lambda: datetime.min).parse(source)
    except Exception as error:  # the parser may also nest too deep
        raise _unusable(error) from error


def _unusable(error: Exception) -> ModelError:
    said = " ".join(f"{getattr(error, 'message', None) or error}".split())[:_MOST_SAID]
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if isinstance(line, int) else ""
    return ModelError(f"the model's chat template cannot be used: {said}{where}", hint=_RAW)


def _checked(number: int, message: object) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UserError(
            f"message {number} is none", hint='a message is {"role": "user", "content": "..."}'
        )
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise UserError(f"message {number} has no content")
    if content is not None and not isinstance(content, str | list):
        raise UserError(f"the content of message {number} is neither a text nor a list of parts")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, str) and _text_of_part(part) is None:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise UserError(
                f"message {number} has a part of the kind {str(kind)[:40]!r}",
                hint="only text can be read",
            )
    return {**message, "content": content}


def _turn(message: Message, write: Callable[[object], object] = lambda it: it) -> dict[str, Any]:
    role = message["role"]
    known = template_text(role) if role in _ROLES else role
    return {**message, "role": known, "content": write(message["content"])}


def _text_of_part(part: object) -> str | None:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None


def _texts(content: object) -> Iterator[str]:
    for part in content if isinstance(content, list) else (content,):
        text = part if isinstance(part, str) else _text_of_part(part)
        if text is not None:
            yield text


def _in_one(content: object) -> object:
    return _BETWEEN_PARTS.join(_texts(content)) if isinstance(content, list) else content


def _in_parts(content: object) -> object:
    if content is None:
        return None
    return [{"type": "text", "text": text} for text in _texts(content)]
