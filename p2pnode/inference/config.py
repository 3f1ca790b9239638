"""What can be tuned about a generation, with bounds."""

from dataclasses import dataclass, field

from p2pnode.errors import ConfigError
from p2pnode.inference.tensor_policy import PolicyConfig
from p2pnode.inference.terms import ACTIVATIONS


@dataclass(frozen=True, slots=True)
class ReuseConfig:
    """What is kept of answers that are over, for those that begin alike.

    Attributes:
        share: Of a stage's KV memory, what kept caches may take, 0 to 1; 0 keeps none. They give
            way before anybody waits for room, so it bounds what is shown as kept and no more.
        most_kept: Kept caches of a stage at the most. A guess: a household's conversations.
        keep_for: Seconds after which one that nobody used is freed. Longer than a person reads an
            answer and writes the next question. A guess.
        most_records: Answers of its own that a requester remembers; 0 for none, and then nothing
            is kept for it anywhere.
        most_positions: Tokens of all of them; each takes some 40 bytes.
        word: What requesters agreed on that let each other begin with what was computed for any of
            them; each can then tell, by the time that it takes, what others asked. Empty for
            nobody. As hard to guess as a password.
    """

    share: float = 0.5
    most_kept: int = 64
    keep_for: float = 900.0
    most_records: int = 64
    most_positions: int = 1 << 18
    word: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"kept caches cannot take {self.share} of the KV memory")
        if min(self.most_kept, self.most_records, self.most_positions) < 0 or self.keep_for <= 0:
            raise ConfigError("what is kept is no less than nothing, for a while")


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """Settings of the requester and of the stages, composed into a node's config.

    Attributes:
        prefill_chunk: Tokens of the prompt computed as one batch, so that stages overlap. 32 to 128
            is good; bigger batches use the engine better, smaller ones overlap more. At least 1.
            Measured on three stages: 4 chunks of a 256-token prompt took 1/1.32 of one.
        open_timeout: Seconds a stage has to admit a session before it is passed over. Must exceed a
            handshake and a round trip; dialling a new peer counts. A guess.
        stall_after: Seconds without a token, beside what the work should take, after which the
            requester re-opens the chain in place and sees who has computed what. If nobody shows
            progress, it looks once more after half of this, and then replaces the laggard. Bounds
            how long a silent stage is borne. A guess.
        stall_per_prompt_token: Seconds that a position is expected to take where no stage of the
            chain says what it costs. A guess: three times a slow laptop's prefill.
        caution: What the work should take, by promise or as measured on this chain, is multiplied
            by this before anybody is suspected. Above 1; the larger, the longer a lie is borne. A
            guess.
        least_rate: Bytes a second of hidden states that explain a wait: a stage to which they come
            more slowly is as good as one to which nothing comes. A liar is borne for as long as all
            that it lacks takes at this rate. Below the worst way that an answer is to go over. A
            guess: a tenth of a poor Wi-Fi.
        longest_look: Most seconds between two looks at a chain that owes a token, however long
            the work should take. Each look costs a message to every stage and an answer. A guess.
        first_look: The same while some stage has had nothing to do yet. Below ``unused_after``, or
            that stage frees the session.
        give_up: Seconds after which an answer fails in which neither a token came nor a stage
            showed progress of a replay; twice what the work should take, if that is more. Above
            ``cover_wait``. A guess.
        replay_factor: A replay, or a first prefill, that shows progress may take this many times
            as long as it should, and ``give_up`` on top; then the answer fails. A guess.
        cover_wait: Seconds a generation waits for peers that cover lost layers, then fails, unless
            its request says another time.
        cover_retry: Seconds between two attempts to find such a cover.
        max_repairs: Repairs of an answer, beside one for each of 32 peers that broke it and one for
            each 64 tokens shown; then it fails and says who broke it how often. A guess.
        distrust: Seconds for which a peer that failed a generation is not planned into any; only
            where no ledger of trust is kept.
        last_resort: Seconds after which such a peer is planned in all the same, if nobody else can
            do its layers.
        slow_factor: A token that takes more than this many times what the plan promised is slow.
            Above 2: a machine that computes for two is honest. A guess.
        slow_margin: Seconds by which a slow token is late at least: less is a hiccup. A guess.
        slow_tokens: Slow tokens in a row before anybody is looked for.
        slow_seconds: Seconds that those are late, together, before anybody is looked for; doubles
            each time that nobody better is found. A guess.
        notice_factor: A peer that did all layers of an answer by itself, and took more than this
            many times what it promised, is entered in the ledger as so fast. Above 1, since a
            promise may be wrong by as much; below ``slow_factor``. A guess.
        notice_margin: Seconds by which a token was late then at least: more than the way to a peer
            and back may vary. A guess.
        open_wait: Seconds for which an ``x-open`` waits at a stage for room, before it is refused.
            Below ``open_timeout`` less a round trip, or the requester has gone elsewhere.
        max_waiting: Such orders that wait at once; an eighth of them of one requester. Beyond,
            they are refused at once.
        unused_after: Seconds after the newest epoch's order in which a stage frees a session that
            nobody ever sent anything. Must exceed what the stages before it take for a batch, where
            its requester does not look. A guess.
        session_idle: Seconds after which a stage frees a session nobody has used. Must exceed a
            person's pause only if sessions outlive answers; they do not yet. A guess.
        max_sessions: Sessions a stage serves at once; while several requesters ask, each has an
            equal share, and those that are not proven one together. Bounds memory for bookkeeping
            (the KV budget bounds the rest).
        batching: Whether the engine computes tokens of several sessions in one step. Off, each is a
            step of its own, and they come in the same order; for measurements.
        step_ms: Milliseconds that such a step should take at most, by what was measured: how long a
            token waits for those of others. Eight rows are a step however long they take, since a
            slow engine gains most by computing them at once.
        max_batches: Batches of a replay computed as one step.
        job_rows: Positions of a replay computed as one step, unless one batch has more; fewer where
            others have sessions here, by ``step_ms``. Bounds how long a stage shows no progress: at
            50 ms a position a step takes 6 s.
        waiting_bytes: Bytes of activations that wait to be computed, of all sessions together;
            once they are reached, a frame of a requester beyond its share of them is dropped.
        replay_window: Unacknowledged bytes to a peer beyond which a stage sends it nothing more
            for now. Several times what a link holds in a round trip; a link of 1 Gb/s and 4 ms
            holds 500 KiB.
        replay_total: The same for all peers together that a stage replays to.
        activations: How the stages of an answer asked here send each other hidden states, unless
            the answer says otherwise: ``f32``, ``f16``, ``i8``, ``q4``, ``q2``, or ``auto`` for as
            fine as each link carries. f32 gives the tokens of one engine; anything else need not
            (docs/decisions/0028).
        kl_budget: Nats of KL divergence that ``auto`` may cost a token, all cuts of the chain
            together; each gets an equal share, since the costs add up. Measured on SmolLM2-135M:
            0.02 raises the perplexity by 2 %, 0.06 by 5 %.
        policy: When an edge changes its coding.
        reuse: What is kept of answers that are over.
    """

    prefill_chunk: int = 64
    open_timeout: float = 2.0
    stall_after: float = 3.0
    stall_per_prompt_token: float = 0.05
    caution: float = 3.0
    least_rate: float = 4096.0
    longest_look: float = 30.0
    first_look: float = 10.0
    give_up: float = 50.0
    replay_factor: float = 10.0
    cover_wait: float = 30.0
    cover_retry: float = 0.25
    max_repairs: int = 8
    distrust: float = 5.0
    last_resort: float = 1.0
    slow_factor: float = 4.0
    slow_margin: float = 0.1
    slow_tokens: int = 3
    slow_seconds: float = 3.0
    notice_factor: float = 1.5
    notice_margin: float = 0.01
    open_wait: float = 1.5
    max_waiting: int = 64
    unused_after: float = 15.0
    session_idle: float = 300.0
    max_sessions: int = 64
    batching: bool = True
    step_ms: float = 50.0
    max_batches: int = 64
    job_rows: int = 128
    waiting_bytes: int = 64 << 20
    replay_window: int = 1 << 20
    replay_total: int = 16 << 20
    activations: str = "f32"
    kl_budget: float = 0.04
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reuse: ReuseConfig = field(default_factory=ReuseConfig)

    def __post_init__(self) -> None:
        counts = ("prefill_chunk", "max_sessions", "max_batches", "max_waiting", "job_rows")
        counts_too = ("slow_tokens", "waiting_bytes", "replay_window")
        for name in (*counts, *counts_too, "replay_total"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        times = (
            "least_rate",
            "open_timeout",
            "stall_after",
            "cover_retry",
            "longest_look",
            "give_up",
        )
        for name in (
            *times,
            "step_ms",
            "unused_after",
            "slow_margin",
            "slow_seconds",
            "notice_margin",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive")
        if self.first_look >= self.unused_after:
            raise ConfigError("first_look is below unused_after, or waiting stages are freed")
        if self.open_wait >= self.open_timeout:
            raise ConfigError("open_wait is below open_timeout, or nobody waits for its answer")
        if min(self.caution, self.slow_factor, self.notice_factor, self.replay_factor) < 1:
            raise ConfigError("caution and the factors are at least 1")
        if self.activations not in ACTIVATIONS:
            raise ConfigError(
                f"hidden states cannot be sent as {self.activations!r}",
                hint=f"one of {', '.join(ACTIVATIONS)}",
            )
        if not 0 <= self.kl_budget <= 100:
            raise ConfigError(f"a budget of {self.kl_budget} nats a token is none")
