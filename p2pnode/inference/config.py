"""What can be tuned about a generation, with bounds."""

from dataclasses import dataclass, field

from p2pnode.errors import ConfigError
from p2pnode.inference.tensor_policy import PolicyConfig
from p2pnode.inference.terms import ACTIVATIONS


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """Settings of the requester and of the stages, composed into a node's config.

    Attributes:
        prefill_chunk: Tokens of the prompt computed as one batch, so that stages overlap. 32 to 128
            is good; bigger batches use the engine better, smaller ones overlap more. At least 1.
            Measured on three stages: 4 chunks of a 256-token prompt took 1/1.32 of one.
        open_timeout: Seconds a stage has to admit a session before it is passed over. Must exceed a
            handshake and a round trip; dialling a new peer counts. A guess.
        stall_after: Seconds without a token after which the requester re-opens the chain in place,
            which finds whoever stopped. Must exceed the slowest honest token. A guess.
        stall_per_prompt_token: Seconds added to ``stall_after`` for each token of the prompt while
            none has been answered. A guess: three times a slow laptop's prefill.
        cover_wait: Seconds a generation waits for peers that cover lost layers, then fails.
        cover_retry: Seconds between two attempts to find such a cover.
        distrust: Seconds for which a peer that failed a generation is not planned into it again.
        last_resort: Seconds after which such a peer is planned in all the same, if nobody else can
            do its layers.
        session_idle: Seconds after which a stage frees a session nobody has used. Must exceed a
            person's pause only if sessions outlive answers; they do not yet. A guess.
        max_sessions: Sessions a stage serves at once; beyond, it refuses. Bounds memory for
            bookkeeping (the KV budget bounds the rest).
        max_batches: Batches computed as one job while others wait for the engine; bounds how long
            a replay holds up another session.
        activations: How the stages of an answer asked here send each other hidden states, unless
            the answer says otherwise: ``f16``, ``i8``, ``q4``, ``q2``, or ``auto`` for as fine as
            each link carries. f16 gives the tokens of one engine; anything else need not
            (docs/decisions/0010).
        kl_budget: Nats of KL divergence that ``auto`` may cost a token, all cuts of the chain
            together; each gets an equal share, since the costs add up. Measured on SmolLM2-135M:
            0.02 raises the perplexity by 2 %, 0.06 by 5 %.
        policy: When an edge changes its coding.
    """

    prefill_chunk: int = 64
    open_timeout: float = 2.0
    stall_after: float = 3.0
    stall_per_prompt_token: float = 0.05
    cover_wait: float = 30.0
    cover_retry: float = 0.25
    distrust: float = 5.0
    last_resort: float = 1.0
    session_idle: float = 300.0
    max_sessions: int = 64
    max_batches: int = 64
    activations: str = "f16"
    kl_budget: float = 0.04
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        if min(self.prefill_chunk, self.max_sessions, self.max_batches) < 1:
            raise ConfigError("prefill_chunk, max_sessions and max_batches must be at least 1")
        if min(self.open_timeout, self.stall_after, self.cover_retry) <= 0:
            raise ConfigError("open_timeout, stall_after and cover_retry must be positive")
        if self.activations not in ACTIVATIONS:
            raise ConfigError(
                f"hidden states cannot be sent as {self.activations!r}",
                hint=f"one of {', '.join(ACTIVATIONS)}",
            )
        if not 0 <= self.kl_budget <= 100:
            raise ConfigError(f"a budget of {self.kl_budget} nats a token is none")
