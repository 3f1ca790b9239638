"""How much an error in each direction of a key or a value matters.

First within a layer, from what attention does with it. An error e of the key at s moves the score
of every later query q by q.e, and so the output of its head by a(v - o)q.e, where a is the
weight of s, v its value and o the head's output. An error of the value moves it by a.e. Both reach
the residual stream through the head's output projection. Squared and summed over a text these are
quadratic forms, a matrix for each head.

Then between layers, by trying: noise of equal size in one layer's keys or values alone, and the
KL of the answers. That needs no theory of what the layers above make of it.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.kv_probe import KvCache, KvProbe, Observed, divergence, without_rope
from p2pnode.engine.numpy.llama import Rotation
from p2pnode.engine.numpy.weights import TokenIds

Doubles = npt.NDArray[np.float64]

STRIDE: Final = 6  # of the keys every sixth is looked at: neighbours meet nearly the same queries
FLOOR: Final = 0.02
"""What is added to a form, of its mean eigenvalue: a direction that no query of a short text looked
along may still matter. Measured: .005 saves 2 % of the bytes and costs 8 % KL, .08 the reverse."""
NOISE: Final = 0.5  # of the deviation of what it is added to: a KL of .001 to .03
ANSWER: Final = 96  # positions that answer


def forms(probe: KvProbe, texts: Sequence[Observed]) -> Doubles:
    """Return the quadratic forms [2, layers, kv_heads, head_dim, head_dim], keys' and values'.

    Each layer's have a mean eigenvalue of 1 over its heads, and :data:`FLOOR` on top.
    """
    config = probe.config
    d, group = config.head_dim, config.n_heads // config.n_kv_heads
    total = np.zeros((2, config.n_layers, config.n_kv_heads, d, d))
    for text in texts:
        rotation = probe.rotation(text.keys.shape[2])
        for layer in range(config.n_layers):
            for head in range(config.n_heads):
                projection = probe.output_of(layer, head)
                pair = _head_forms(text, layer, head, head // group, projection, rotation)
                total[:, layer, head // group] += pair
    mean = np.trace(total, axis1=-2, axis2=-1).mean(axis=2) / d  # [2, layers]
    even: Doubles = total / mean[..., None, None, None] + FLOOR * np.eye(d)
    return even


def slopes(
    cases: Sequence["Case"], forms: Doubles, tell: Callable[[float], None] = lambda _: None
) -> Doubles:
    """Return the KL [2, layers] that error of variance 1 in each weighed direction would cost.

    Measured with less, and taken as proportional. ``tell`` hears which part is done.
    """
    rng = np.random.default_rng(0)  # the same noise whenever this model is calibrated
    roots = np.linalg.cholesky(np.linalg.inv(forms))  # [2, layers, kv_heads, d, d]
    found = np.zeros(forms.shape[:2])
    for layer in range(forms.shape[1]):
        for part in (0, 1):
            for case in cases:
                size = NOISE * case.deviation(part, layer, forms[part, layer])
                cost = case.cost(part, layer, size * roots[part, layer], rng)
                found[part, layer] += cost / size**2 / len(cases)
        tell((layer + 1) / forms.shape[1])
    return found


class Case:
    """One text: the cache of all but its end, and what is answered at the end, undisturbed.

    Args:
        probe: The model.
        tokens: Ids, more than ``answer``.
        answer: How many tokens the end has.
    """

    def __init__(self, probe: KvProbe, tokens: TokenIds, answer: int = ANSWER) -> None:
        self._probe = probe
        self.tokens = tokens
        self._after = tokens[-answer:]
        self.seen = probe.observe(tokens[:-answer])
        self.clean = probe.answer(self.seen, self._after)  # [answer, vocab], log probabilities
        self.rotation = probe.rotation(len(tokens) - answer)

    def answer(self, cache: KvCache) -> Floats:
        """Return the log probabilities [answer, vocab] with another cache in place of its own."""
        return self._probe.answer(cache, self._after)

    def deviation(self, part: int, layer: int, form: Doubles) -> float:
        """Return how far the keys (part 0) or values of a layer stray, as ``form`` weighs them."""
        rows = self._rows(part, layer)[:, 1:]  # [kv_heads, positions - 1, head_dim]
        centred = rows - rows.mean(axis=1, keepdims=True)
        weighed = np.einsum("hpd,hde,hpe->hp", centred, form, centred)
        return float(np.sqrt(weighed.mean() / rows.shape[-1]))

    def cost(self, part: int, layer: int, root: Doubles, rng: np.random.Generator) -> float:
        """Return the KL where noise, shaped by ``root`` [kv_heads, d, d], is in one layer."""
        keys, values = self.seen.keys.copy(), self.seen.values.copy()
        rows = self._rows(part, layer)  # [kv_heads, positions, head_dim]
        noise = rng.standard_normal(rows.shape) @ root.swapaxes(-1, -2)
        noise[:, 0] = 0  # the first position is coded apart
        noisy = (rows + noise).astype(np.float32)
        if part == 0:
            keys[layer] = without_rope(noisy, self.rotation.conj())
        else:
            values[layer] = noisy
        return divergence(self.clean, self.answer(KvCache(keys, values)))

    def _rows(self, part: int, layer: int) -> Floats:
        values, keys = self.seen.values[layer], self.seen.keys[layer]
        return values if part == 1 else without_rope(keys, self.rotation)


def _head_forms(
    text: Observed, layer: int, head: int, group: int, projection: Floats, rotation: Rotation
) -> tuple[Doubles, Doubles]:
    """Return the forms [head_dim, head_dim] of one query head, for its keys and its values."""
    queries = text.queries[layer, :, head]  # [positions, head_dim]
    values = text.values[layer, group]  # [positions, head_dim]
    weights = _attention(queries, text.keys[layer, group])  # [queries, keys]
    gram = projection.T @ projection  # [head_dim, head_dim]
    outputs = weights @ values  # [queries, head_dim]
    apart = np.vecdot(values @ gram, values) - 2 * outputs @ gram @ values.T
    apart += np.vecdot(outputs @ gram, outputs)[:, None]  # [queries, keys], squared distances
    pull = weights**2 * np.maximum(apart, 0)  # [queries, keys]
    of_keys = np.zeros(gram.shape)
    for at in range(1, len(queries), STRIDE):
        seen = without_rope(queries[at:], rotation[at : at + 1])  # as the key at ``at`` meets them
        of_keys += (seen * pull[at:, at, None]).T @ seen
    return of_keys, gram * np.square(weights[:, 1:]).sum(dtype=np.float64)


def _attention(queries: Floats, keys: Floats) -> Floats:
    """Return the causal weights [queries, keys]."""
    scores = queries @ keys.T
    scores[np.triu_indices_from(scores, k=1)] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    weights: Floats = np.exp(scores)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
