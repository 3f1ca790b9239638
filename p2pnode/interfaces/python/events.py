"""What a program is told of an answer: its events as they come, and what came of it.

All are frozen. Each event has ``text``, the words that it adds to the answer, so whoever wants
those alone joins them and looks at nothing else::

    for event in client.generate("Why is the sky blue?"):
        print(event.text, end="")

A later version may add events, and fields with defaults; a program that matches classes passes over
those that it does not know.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to an answer.

    Attributes:
        text: The words that it adds to the answer; empty for most.
    """

    text: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One machine's part of a chain.

    Attributes:
        peer: Its ed25519 key, in hex.
        name: What its owner calls it; not unique.
        layers: The layers that it computes.
        cost_ms: What a token is expected to take there, milliseconds.
        numerics: How it computes; empty if it does not say.
        reason: Why it was chosen, in words.
    """

    peer: str
    name: str
    layers: range
    cost_ms: float = 0.0
    numerics: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who computes an answer.

    Attributes:
        objective: What the plan is best at: ``latency`` or ``throughput``.
        stages: The chain, in order of layers.
        hop_ms: What each hop is expected to take, milliseconds.
        expected_ms_per_token: What a token is expected to take, milliseconds.
        reasons: Why it is so, in words.
    """

    objective: str
    stages: tuple[Stage, ...]
    hop_ms: tuple[float, ...] = ()
    expected_ms_per_token: float = 0.0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenChance:
    """How likely a token was.

    Attributes:
        token: Its id.
        text: How it is spelled; half a character is U+FFFD here, and whole in ``spelled``.
        spelled: Its bytes.
        logprob: The natural logarithm of its probability.
        top: The likeliest tokens in its place, as many as were asked for, likeliest first.
    """

    token: int
    text: str
    spelled: bytes
    logprob: float
    top: tuple["TokenChance", ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model made.

    Attributes:
        name: Of the tool, as the model wrote it.
        arguments: A JSON object, as text.
    """

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(Event):
    """The question waits for its turn.

    Attributes:
        ahead: How many wait before it.
    """

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark(Event):
    """Something of the question changes nothing.

    Attributes:
        line: What, in words: for instance a peer to prefer that nobody knows.
    """

    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened(Event):
    """The oldest messages of a chat were left out, so that the rest fits the model's context.

    Attributes:
        left_out: How many.
    """

    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Event):
    """Peers were found, and the answer begins.

    Attributes:
        plan: Who computes it.
        prompt_tokens: Tokens of the prompt.
        reused: Those of them that nobody has to compute: every peer held them from an earlier
            answer.
    """

    plan: Plan
    prompt_tokens: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Event):
    """A token was drawn. Its words may come with a later one: some characters take several tokens.

    Attributes:
        token: Its id.
        position: Its place, counted from the prompt's first token.
        chance: How likely it was; None unless ``logprobs`` were asked for.
        calls: Calls of tools that it completes.
    """

    token: int
    position: int
    chance: TokenChance | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest(Event):
    """The last words, which were held back for a stop string or a call that did not come.

    Attributes:
        calls: Calls of tools that end with the answer.
    """

    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """Nobody serves some of the layers; the answer waits for somebody.

    Attributes:
        layers: Which runs of layers are missing.
        wait_s: Seconds until the answer fails for want of them.
        reasons: Why those that are there cannot help, in words.
    """

    layers: tuple[range, ...]
    wait_s: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Event):
    """A stage was lost; the answer goes on once somebody has taken its place.

    Attributes:
        epoch: How often the chain had been opened before.
        peers: Who was lost: ed25519 keys, in hex.
        names: What they are called.
        layers: What they computed.
        reason: How it was noticed, in words.
        wait_s: Seconds for which a replacement is waited for.
    """

    epoch: int
    peers: tuple[str, ...]
    reason: str
    names: tuple[str, ...] = ()
    layers: tuple[range, ...] = ()
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired(Event):
    """Somebody took the place of a lost stage, and the answer goes on.

    Attributes:
        epoch: How often the chain has been opened now.
        seconds: What the repair took.
        stages: The chain as it is now.
        instead: Those of it that are new.
        is_bit_reproducible: Whether the tokens are still those of the undisturbed answer.
        changed: Why they may not be; empty while they are.
    """

    epoch: int
    seconds: float
    stages: tuple[Stage, ...]
    instead: tuple[Stage, ...] = ()
    is_bit_reproducible: bool = True
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question.

    Attributes:
        text: The answer's words.
        finish: Why it ended: ``stop`` (the model or a stop string ended it), ``length`` (as many
            tokens as it may have), or a later version's word.
        stopped_by: The stop string that ended it; None if none did.
        token_ids: Its tokens, one that ends a text included.
        prompt_ids: The tokens of the prompt, as the model read it.
        left_out: How many of the oldest messages were left out, so that the rest fits.
        reused: Tokens of the prompt that nobody had to compute, since every peer held them from an
            earlier answer.
        plan: Who computed it, at first.
        first_token_ms: From the prompt's sending to the first token, milliseconds.
        queued_ms: In the queue before that, milliseconds.
        total_ms: From the question to the end, milliseconds.
        tokens_per_s: Speed of decoding, the first token left out.
        hop_p50_ms: Median of what a hop took, milliseconds; None where all was one machine's.
        hop_p99_ms: 99th percentile of it.
        is_bit_reproducible: Whether one machine would say the very same.
        changed: Why not; empty if it would.
        broken: Losses of stages, in order.
        repaired: Repairs, in order.
        codings: What hidden states were sent as.
        kl_per_token: Nats a token that this cost, by estimate.
        chances: How likely each token was; empty unless ``logprobs`` were asked for.
        calls: Calls of tools, in order.
    """

    text: str
    finish: str
    token_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    stopped_by: str | None = None
    left_out: int = 0
    plan: Plan | None = None
    first_token_ms: float = 0.0
    queued_ms: float = 0.0
    total_ms: float = 0.0
    tokens_per_s: float = 0.0
    hop_p50_ms: float | None = None
    hop_p99_ms: float | None = None
    is_bit_reproducible: bool = True
    changed: str = ""
    broken: tuple[Broken, ...] = ()
    repaired: tuple[Repaired, ...] = ()
    codings: tuple[str, ...] = ()
    kl_per_token: float = 0.0
    chances: tuple[TokenChance, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts.

    Attributes:
        vectors: One a text, in order: each [dimensions], floats.
        tokens: Tokens of all the texts together.
        model: What made them; empty if the node does not say.
    """

    vectors: tuple[tuple[float, ...], ...]
    tokens: int = 0
    model: str = ""
