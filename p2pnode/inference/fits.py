"""Whether a question can be answered by any swarm."""

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.sampling.options import MOST_PAST
from p2pnode.errors import LengthError, UserError
from p2pnode.inference.mean_slice import WIDEST
from p2pnode.inference.request import GenerationRequest


def check_fits(request: GenerationRequest, model: ModelInfo) -> None:
    """Refuse what no swarm could answer.

    Raises:
        UserError: It is the question's fault; a LengthError where it is too long.
    """
    if not request.prompt or request.max_tokens < 1:
        raise UserError("an answer needs a prompt and at least one token of room")
    if any(not 0 <= token < model.vocab_size for token in request.prompt):
        raise UserError(f"the prompt has tokens beyond {model.name}'s vocabulary")
    if request.sampling.mean and (request.max_tokens > 1 or model.d_model > WIDEST):
        raise UserError(f"{model.name} gives one mean of at most {WIDEST} numbers")
    if request.sampling.needs_past and request.max_tokens > MOST_PAST:
        raise UserError(
            f"an answer whose tokens depend on those before has at most {MOST_PAST}, not "
            f"{request.max_tokens}",
            hint=f"lower --max-tokens to {MOST_PAST}, or leave penalties and schema out",
        )
    if request.sampling.schema and not request.sampling.ends:
        raise UserError(
            "an answer that follows a schema ends by itself, so something must end it",
            hint="leave ignore_eos out",
        )
    if request.positions > model.context_length:
        raise LengthError(
            f"the prompt has {len(request.prompt)} tokens and the answer may have "
            f"{request.max_tokens}, but the context of {model.name} ends at {model.context_length}",
            hint="shorten the prompt or lower --max-tokens",
        )
