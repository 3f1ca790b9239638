from random import Random

import reedsolo
from hypothesis import given, settings, strategies as st

from p2pnode.transport import fec


def shards_of(seed: int, count: int, size: int) -> list[bytes]:
    rng = Random(seed)
    return [rng.randbytes(size) for _ in range(count)]


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, fec.MAX_DATA),
    size=st.integers(1, 5),
    first=st.integers(0, fec.MAX_PARITY - 1),
)
@settings(max_examples=30)
def test_parity_is_what_reedsolo_computes(seed: int, count: int, size: int, first: int) -> None:
    data = shards_of(seed, count, size)
    codec = reedsolo.RSCodec(fec.MAX_PARITY)
    expected = [
        bytes(codec.encode(bytes(shard[at] for shard in data)))[count:] for at in range(size)
    ]
    parity = fec.encode(data, first, fec.MAX_PARITY - first)
    for at in range(size):
        assert bytes(shard[at] for shard in parity) == expected[at][first:]


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 80),
    size=st.integers(1, 40),
    parity=st.integers(0, fec.MAX_PARITY),
)
def test_any_count_of_shards_bring_all_back(seed: int, count: int, size: int, parity: int) -> None:
    data = shards_of(seed, count, size)
    everything = dict(enumerate([*data, *(fec.encode(data, 0, parity) if parity else [])]))
    kept = Random(seed).sample(sorted(everything.items()), count)
    assert fec.recover(dict(kept), count) == data
