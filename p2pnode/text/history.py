"""What of a long conversation still fits: the oldest turns leave first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

Message: TypeAlias = Mapping[str, Any]
"""``{"role": "user", "content": "..."}``; the content may be a list of parts."""

_PromptT = TypeVar("_PromptT", bound=Sequence[int])
_STANDING: Final = frozenset({"system", "developer"})


def room_for_prompt(context_length: int, max_tokens: int) -> int:
    """Return how many tokens a conversation may take, so that an answer has room.

    An answer that may be long is promised a quarter of the context, not all that it asks for: else
    a large ``max_tokens`` would push out what the answer is about.
    """
    return context_length - max(1, min(max_tokens, context_length // 4))


def fit(
    messages: Sequence[Message], room: int, prompt_of: Callable[[Sequence[Message]], _PromptT]
) -> tuple[_PromptT, int]:
    """Return the prompt of as much of a conversation as fits, and how many messages left it.

    What stands at its head for the whole conversation stays. The rest is cut before a message of
    the user, so that no answer stands without its question; the last such message always stays, and
    then the prompt may be longer than ``room``.
    """
    prompt = prompt_of(messages)
    if len(prompt) <= room:
        return prompt, 0
    head = 0
    while head < len(messages) and messages[head].get("role") in _STANDING:
        head += 1
    cuts = [at for at in range(head + 1, len(messages)) if messages[at].get("role") == "user"]
    if not cuts:
        return prompt, 0
    low, high = 0, len(cuts) - 1  # the first cut that fits is in [low, high], else it is the last
    while low < high:
        middle = (low + high) // 2
        if len(prompt_of([*messages[:head], *messages[cuts[middle] :]])) <= room:
            high = middle
        else:
            low = middle + 1
    return prompt_of([*messages[:head], *messages[cuts[low] :]]), cuts[low] - head
