"""Logprobs as faces have them, in JSON."""

from p2pnode.engine.sampling.logprobs import Logprobs
from p2pnode.text.detokenizer import Detokenizer


def logprobs_body(token: int, logprobs: Logprobs, detokenizer: Detokenizer) -> dict[str, object]:
    """Return what is known of a drawn token: itself, and the likeliest in ``top``."""
    top = [_one(other, logprob, detokenizer) for other, logprob in logprobs.top]
    return {**_one(token, logprobs.chosen, detokenizer), "top": top}


def _one(token: int, logprob: float, detokenizer: Detokenizer) -> dict[str, object]:
    """Describe a token; its text alone may have half a character, which its bytes do not hide."""
    spelled = detokenizer.bytes_of(token, control=True)
    return {
        "token": token,
        "text": spelled.decode("utf-8", "replace"),
        "bytes": list(spelled),
        "logprob": round(logprob, 6),
    }
